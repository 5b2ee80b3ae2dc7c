"""Euclidean distances of all pairs of rows, in blocks: what the metrics by nearest neighbours are made of."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ganforge.evaluation.sample import Sample

ROUNDING = 1e-9
"""Squared distances that differ by less than this share of themselves count as equal."""

_BLOCK = 1024  # rows of either side: 8 MB of distances a block, and 32 MB of features at D = 4096
_SAME = 1e-13  # of the squared norms: rounding of float64, and beyond what float32 features can tell apart
# Neighbours found in one pass over a sample, so that metrics with other k need none of their own.
_SHARED = 10


def distance_blocks(
    queries: Tensor, points: Tensor, upper: bool = False
) -> Iterator[tuple[slice, slice, Tensor]]:
    """|q - p|² of all pairs, block by block.

    Computed as |q|² + |p|² - 2 q·p in float64 around the points' mean. What is left of rounding between equal rows is
    set to exactly 0, so that equal images are at distance 0 wherever they stand.

    Args:
        queries: float32 (n, D), on the CPU.
        points: float32 (m, D), on the CPU.
        upper: only the blocks on and above the diagonal, for queries and points that are the same.

    Yields:
        Rows of queries, rows of points, float64 (rows of queries, rows of points); the last is the caller's to change.

    Raises:
        ValueError: the features' widths differ, or one side has no rows.
    """
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"features of shapes {tuple(queries.shape)} and {tuple(points.shape)} are not comparable"
        )
    if len(queries) == 0 or len(points) == 0:
        raise ValueError(f"no distances between {len(queries)} and {len(points)} features")
    centre = mean_feature(points)
    for i in range(0, len(queries), _BLOCK):
        rows = slice(i, min(i + _BLOCK, len(queries)))
        q = queries[rows] - centre
        for j in range(i if upper else 0, len(points), _BLOCK):
            columns = slice(j, min(j + _BLOCK, len(points)))
            p = points[columns] - centre
            norms = q.square().sum(dim=1)[:, None] + p.square().sum(dim=1)
            squares = torch.addmm(norms, q, p.T, alpha=-2)
            yield rows, columns, squares.masked_fill_(squares <= norms.mul_(_SAME), 0)


def mean_feature(features: Tensor) -> Tensor:
    """Mean in float64 (D,) of float32 (N, D), in blocks: torch's own makes a float64 copy of all features."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for block in torch.split(features, _BLOCK):
        total += block.double().sum(dim=0)
    return total / len(features)


def neighbour_distances(features: Tensor, k: int) -> Tensor:
    """Distances to the k nearest other rows.

    Args:
        features: float32 (N, D), on the CPU.
        k: 1 to N - 1.

    Returns:
        float64 (N, k), ascending. An equal row elsewhere is a neighbour at distance 0; a row is not its own neighbour.

    Raises:
        ValueError: k is not of 1 to N - 1.
    """
    if not 1 <= k < len(features):
        raise ValueError(
            f"neighbour number {k} of {len(features)} rows: it has to be from 1 to {len(features) - 1}"
        )
    best = torch.full((len(features), k), torch.inf, dtype=torch.float64)

    def keep(rows: slice, squares: Tensor) -> None:
        best[rows] = torch.cat([best[rows], squares], dim=1).topk(k, largest=False).values

    for rows, columns, squares in distance_blocks(features, features, upper=True):
        if rows == columns:
            keep(rows, squares.fill_diagonal_(torch.inf))
        else:
            keep(rows, squares)
            keep(columns, squares.T.contiguous())
    return best.sqrt_()


def neighbour_radii(features: Tensor, k: int) -> Tensor:
    """Distance to the k-th nearest other row, float64 (N,): see `neighbour_distances`."""
    return neighbour_distances(features, k)[:, -1]


def sample_radii(sample: Sample, k: int) -> Tensor:
    """`neighbour_radii` of a sample's features, remembered with the sample: one pass serves every k up to 10."""
    features = sample.features
    assert features is not None
    found = max(k, min(_SHARED, len(features) - 1))
    return sample.once(("neighbours", found), lambda: neighbour_distances(features, found))[:, k - 1]


def nearest(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Each query's nearest point.

    Args:
        queries: float32 (n, D), on the CPU.
        points: float32 (m, D), on the CPU; a point equal to the query counts, at distance 0.

    Returns:
        Distances float64 (n,) and the points' rows int64 (n,).
    """
    distances, indices = nearest_few(queries, points, 1)
    return distances[:, 0], indices[:, 0]


def nearest_few(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Each query's k nearest points, nearest first: distances float64 (n, k) and the points' rows int64 (n, k).

    Raises:
        ValueError: k is not of 1 to the number of points.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"{k} nearest of {len(points)} points: it has to be from 1 to {len(points)}")
    best = torch.full((len(queries), k), torch.inf, dtype=torch.float64)
    indices = torch.zeros((len(queries), k), dtype=torch.int64)
    for rows, columns, squares in distance_blocks(queries, points):
        places = torch.arange(columns.start, columns.stop).expand(len(squares), -1)
        best[rows], chosen = torch.cat([best[rows], squares], dim=1).topk(k, largest=False)
        indices[rows] = torch.cat([indices[rows], places], dim=1).gather(1, chosen)
    return best.sqrt_(), indices


def too_few_for(k: int, **sides: Sample) -> str | None:
    """Why not every row of these sides has k neighbours on its own side, in words; None when all have."""
    for side, sample in sides.items():
        rows = 0 if sample.features is None else len(sample.features)
        if rows <= k:
            return f"the {side} side has {rows} features, too few for the neighbour number {k} of each"
    return None
