"""What checks go by, of tensors: how alike images are, how far weights moved, how large singular values are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList

_DOUBLE = 0.05
_LARGEST = 32
_PER_TENSOR = 256


def distances(images: Tensor, classes: int) -> Tensor:
    """Euclidean distances within each class, float32 (classes, k, k), of pictures no larger than 32x32.

    Args:
        images: (classes * k, ...), a class after the other; larger pictures are averaged down first.
    """
    images = images.float()
    if images.ndim == 4 and images.shape[-1] > _LARGEST:
        images = adaptive_avg_pool2d(images, _LARGEST)
    rows = images.reshape(classes, len(images) // classes, -1)
    # Not by products of the rows, which lose the digits that tell doubles apart.
    found: Tensor = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return found


def diversity(generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """How much generated images differ, from their `distances` and those of as many classes of real ones, (C, k, k).

    Returns:
        The mean distance of two of a class, as a multiple of that of real ones; the share with a double: another of
        the class nearer than a twentieth of the mean real image's nearest.
    """
    spread = _of_pairs(generated).mean() / _of_pairs(real).mean().clamp(min=1e-12)
    doubles = _nearest(generated) < _DOUBLE * _nearest(real).mean()
    return spread, doubles.float().mean()


def _of_pairs(within: Tensor) -> Tensor:
    k = within.shape[-1]
    return within[:, ~torch.eye(k, dtype=torch.bool, device=within.device)]


def _nearest(within: Tensor) -> Tensor:
    itself = torch.eye(within.shape[-1], dtype=torch.bool, device=within.device)
    return within.masked_fill(itself, torch.inf).amin(-1)


def excerpt(parameters: Sequence[Tensor]) -> Tensor:
    """The first numbers of each parameter: enough to see whether, and how far, they move. Float32, on the CPU."""
    parts = [p.detach().reshape(-1)[:_PER_TENSOR].float() for p in parameters]
    return torch.cat(parts).cpu() if parts else torch.zeros(0)


def movement(before: Tensor, now: Tensor) -> float:
    """The norm of the change over that of the weights."""
    size = float(torch.linalg.vector_norm(before))
    return float(torch.linalg.vector_norm(now - before)) / size if size > 0 else 0.0


def weights(side: nn.Module) -> Iterator[Tensor]:
    """Trained weights of layers, but for those that spectral normalisation divides by their norm."""
    normalised = {
        id(parametrized.original)
        for parametrized in side.modules()
        if isinstance(parametrized, ParametrizationList)
        and any(isinstance(norm, _SpectralNorm) for norm in parametrized)
    }
    for parameter in side.parameters():
        if parameter.requires_grad and parameter.ndim >= 2 and id(parameter) not in normalised:
            yield parameter


class SingularValues:
    """The largest singular values of a side's weights, each as a matrix (out, the rest), by the power method.

    Each call goes on from the vectors of the one before, by one step: they follow the weights.

    Args:
        generator: for the first vectors.
    """

    def __init__(self, side: nn.Module, generator: torch.Generator) -> None:
        self._weights = list(weights(side))
        first = [torch.randn(len(w), generator=generator).to(w.device) for w in self._weights]
        self.vectors = [u / torch.linalg.vector_norm(u) for u in first]

    @torch.no_grad()
    def largest(self, steps: int = 1) -> Tensor | None:
        """Scalar; None where there is no weight to look at."""
        if not self._weights:
            return None
        for _ in range(steps):
            norms = [self._step(index) for index in range(len(self._weights))]
        return torch.stack(norms).max()

    def _step(self, index: int) -> Tensor:
        matrix, u = self._weights[index].detach().flatten(1).float(), self.vectors[index]
        v = matrix.T @ u
        v = v / torch.linalg.vector_norm(v).clamp(min=1e-12)
        image = matrix @ v
        norm: Tensor = torch.linalg.vector_norm(image)
        self.vectors[index] = torch.where(norm > 0, image / norm, u)  # weights may start at 0
        return norm
