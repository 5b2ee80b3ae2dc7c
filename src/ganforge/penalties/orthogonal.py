"""Orthogonal regularisation (Brock et al. 2017, "Neural Photo Editing"; Brock et al. 2019, BigGAN)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ganforge.penalties.layer_weights import layer_weights
from ganforge.penalties.penalty import ParameterPenalty, Player
from ganforge.schedules import Value


def orthogonal(weights: Iterable[Tensor], off_diagonal: bool = False) -> Tensor:
    """Σ ‖W Wᵀ - I‖²_F over weights (rows, ...), each flattened to W (rows, columns); scalar.

    Zero where rows are orthonormal. With `off_diagonal`, Σ ‖W Wᵀ ⊙ (1 - I)‖²_F: rows of any length.
    """
    return torch.stack(
        [_distance_from_orthogonal(w.flatten(start_dim=1), off_diagonal) for w in weights]
    ).sum()


def _distance_from_orthogonal(w: Tensor, off_diagonal: bool) -> Tensor:
    with torch.autocast(w.device.type, enabled=False):
        gram = w @ w.T
    target = gram.diagonal().diag() if off_diagonal else torch.eye(len(gram), dtype=w.dtype, device=w.device)
    return (gram - target).square().sum()


class Orthogonal(ParameterPenalty):
    """β · Σ ‖W Wᵀ - I‖²_F over the convolutions and linear layers, in the discriminator over embeddings as well.

    W is the trained parameter itself, before spectral norm divides it.

    Args:
        weight: β, at least 0; 1e-4 in BigGAN.
        off_diagonal: leave the rows' lengths free, which is BigGAN's form.
        player: whose network; in BigGAN the generator's, without its embedding of labels.
        every: see `Penalty`.
    """

    def __init__(
        self,
        weight: Value = 1e-4,
        off_diagonal: bool = False,
        player: Player = "discriminator",
        every: int = 1,
    ) -> None:
        super().__init__(weight, every, player)
        self.off_diagonal = off_diagonal

    def forward(self, network: nn.Module) -> Tensor:
        weights = layer_weights(network, embeddings=self.player == "discriminator")
        return self.weight * orthogonal(weights, self.off_diagonal)
