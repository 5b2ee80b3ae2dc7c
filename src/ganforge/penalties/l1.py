"""The L1 penalty on weights (Tibshirani 1996, "Regression Shrinkage and Selection via the Lasso"): zero weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ganforge.penalties.layer_weights import layer_weights
from ganforge.penalties.penalty import ParameterPenalty, Player
from ganforge.schedules import Value


def l1(weights: Iterable[Tensor]) -> Tensor:
    """Σ |w| over all numbers of the weights, scalar."""
    return torch.stack([w.abs().sum() for w in weights]).sum()


class L1(ParameterPenalty):
    """λ · Σ |w| over the convolutions, linear layers and embeddings; λ is `weight`. Biases and norms stay free.

    Args:
        weight, every: see `Penalty`.
        player: whose network.
    """

    def __init__(self, weight: Value = 1e-4, player: Player = "discriminator", every: int = 1) -> None:
        super().__init__(weight, every, player)

    def forward(self, network: nn.Module) -> Tensor:
        return self.weight * l1(layer_weights(network))
