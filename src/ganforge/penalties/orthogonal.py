"""Orthogonal regularisation (Brock et al. 2017, "Neural Photo Editing"; Brock et al. 2019, BigGAN)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ganforge.penalties.penalty import ParameterPenalty

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)


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
    """β · Σ ‖W Wᵀ - I‖²_F over the convolutions, linear layers and embeddings of the discriminator.

    W is the trained parameter itself, before spectral norm divides it.

    Args:
        weight: β, at least 0; 1e-4 in BigGAN.
        off_diagonal: leave the rows' lengths free, which is BigGAN's form.
        every: see `Penalty`.
    """

    def __init__(self, weight: float = 1e-4, off_diagonal: bool = False, every: int = 1) -> None:
        super().__init__(weight, every)
        self.off_diagonal = off_diagonal

    def forward(self, discriminator: nn.Module) -> Tensor:
        """The penalty; ValueError if the discriminator has none of these layers."""
        weights = layer_weights(discriminator)
        if not weights:
            raise ValueError(
                f"{type(discriminator).__name__} has no convolution, linear layer or embedding of torch.nn, "
                "so there is nothing to make orthogonal; leave penalty=orthogonal out"
            )
        return self.weight * orthogonal(weights, self.off_diagonal)


def layer_weights(network: nn.Module) -> list[Tensor]:
    """The weights (rows, ...) of the layers, parametrised or not; biases, norms and the like stay out."""
    layers = (module for module in network.modules() if isinstance(module, LAYERS))
    return [parameter for layer in layers for parameter in layer.parameters() if parameter.ndim >= 2]
