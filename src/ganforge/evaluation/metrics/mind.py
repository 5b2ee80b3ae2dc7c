"""Monge Inception distance: Berthet et al. 2026 (2605.06797)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ganforge.evaluation.metrics.distances import mean_feature
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample

_BLOCK = 32  # directions at once: 6 MB of projections of 50,000 images
_KEPT_BYTES = 256 * 2**20


class MIND(Metric):
    """Sliced Wasserstein distance of the features, on the scale of FID.

    mind: 3 D times the mean, over random unit directions, of the squared 2-Wasserstein distance between the two sides'
    features projected on the direction, which in one dimension is a matter of sorting. In units of squared features;
    at least 0. It needs no covariances, and far fewer images than FID for a value near its limit; few images raise it
    all the same.

    Args:
        projections: how many directions, at least 1.
        seed: of the directions: the same ones in every evaluation.
    """

    fewest = 1

    def __init__(self, projections: int = 1000, seed: int = 0) -> None:
        if projections < 1:
            raise ValueError(f"projections={projections}: it has to be at least 1")
        self.projections = projections
        self.seed = seed

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"mind": "lower"}

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        x, y = generated.features, real.features
        assert x is not None
        assert y is not None
        key = "mind", self.projections, self.seed
        directions = real.once(
            (*key, "directions"), lambda: unit_directions(self.projections, y.shape[1], self.seed)
        )
        centre = real.once(("mind", "centre"), lambda: mean_feature(y).float())
        if 4 * len(y) * self.projections <= _KEPT_BYTES:
            kept = real.once((*key, "sorted"), lambda: _all_sorted(y, directions, centre))
            blocks: Iterator[Tensor] = iter(torch.split(kept, _BLOCK))
        else:
            blocks = _sorted_projections(y, directions, centre)
        total = 0.0
        for a, b in zip(_sorted_projections(x, directions, centre), blocks, strict=True):
            total += float(squared_wasserstein(a, b).sum())
        return {"mind": 3 * x.shape[1] * total / self.projections}


def unit_directions(count: int, dimensions: int, seed: int) -> Tensor:
    """Uniform on the sphere, float32 (count, dimensions)."""
    normal = torch.randn(
        count, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    directions: Tensor = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    return directions.float()


def squared_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of one-dimensional samples, exact for any two numbers of values.

    It is the integral over t in [0, 1] of the squared difference of the samples' quantile functions at t.

    Args:
        a, b: float32 (B, n) and (B, m), each row ascending.

    Returns:
        float64 (B,).
    """
    n, m = a.shape[1], b.shape[1]
    if n == m:
        return torch.mean((a - b).double().square_(), dim=1)
    # Both are constant between neighbouring multiples of 1/n or 1/m; in units of 1/(n m) these are whole numbers.
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m) * n]))
    widths = ends.diff(prepend=ends.new_zeros(1))
    starts = ends - widths
    difference = a[:, starts // m] - b[:, starts // n]
    return torch.mv(difference.double().square_(), widths.double() / (n * m))


def _sorted_projections(features: Tensor, directions: Tensor, centre: Tensor) -> Iterator[Tensor]:
    """(features - centre)·direction in ascending order, float32 (B, N) for a block of B directions at a time.

    Moving both sides by the same centre leaves their distance as it is, and its rounding small.
    """
    for block in torch.split(directions, _BLOCK):
        yield (block @ features.T).sub_((block @ centre)[:, None]).sort(dim=1).values


def _all_sorted(features: Tensor, directions: Tensor, centre: Tensor) -> Tensor:
    """The blocks of `_sorted_projections` as one, (directions, N)."""
    kept = torch.empty(len(directions), len(features))
    for part, block in zip(
        torch.split(kept, _BLOCK), _sorted_projections(features, directions, centre), strict=True
    ):
        part.copy_(block)
    return kept
