"""The L2 penalty on weights (Krogh & Hertz 1991, "A Simple Weight Decay Can Improve Generalization"): small weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ganforge.penalties.layer_weights import layer_weights
from ganforge.penalties.penalty import ParameterPenalty, Player
from ganforge.schedules import Value


def l2(weights: Iterable[Tensor]) -> Tensor:
    """Σ w² over all numbers of the weights, scalar."""
    return torch.stack([w.square().sum() for w in weights]).sum()


class L2(ParameterPenalty):
    """λ · Σ w² over the convolutions, linear layers and embeddings; λ is `weight`. Biases and norms stay free.

    Args:
        weight, every: see `Penalty`.
        player: whose network.
    """

    def __init__(self, weight: Value = 1e-4, player: Player = "discriminator", every: int = 1) -> None:
        super().__init__(weight, every, player)

    def forward(self, network: nn.Module) -> Tensor:
        return self.weight * l2(layer_weights(network))
