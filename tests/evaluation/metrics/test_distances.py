"""Distances in blocks against float64 differences, and equal rows at exactly 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganforge.evaluation.metrics import distances
from ganforge.evaluation.metrics.distances import (
    distance_blocks,
    nearest,
    nearest_few,
    neighbour_distances,
    neighbour_radii,
    sample_radii,
    too_few_for,
)
from ganforge.evaluation.sample import Sample


def normal(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def brute(x: Tensor, y: Tensor) -> Tensor:
    return (x.double()[:, None] - y.double()[None]).norm(dim=2)


@pytest.fixture(params=[7, 1024], ids=["small blocks", "one block"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_blocks_tile_the_float64_distances(seed: int, offset: float) -> None:
    x, y = normal(30, 5, seed) + offset, normal(23, 5, seed + 100) + offset
    whole = torch.full((30, 23), -1.0, dtype=torch.float64)
    for rows, columns, squares in distance_blocks(x, y):
        whole[rows, columns] = squares
    torch.testing.assert_close(whole.sqrt(), brute(x, y), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("k", [1, 3, 20, 29])
def test_neighbours_are_the_smallest_distances_to_other_rows(seed: int, k: int) -> None:
    x = normal(30, 4, seed)
    expected = brute(x, x).fill_diagonal_(torch.inf).sort(dim=1).values[:, :k]
    torch.testing.assert_close(neighbour_distances(x, k), expected)
    torch.testing.assert_close(neighbour_radii(x, k), expected[:, -1])


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nearest_points_and_their_rows(seed: int) -> None:
    queries, points = normal(20, 4, seed), normal(33, 4, seed + 100)
    expected = brute(queries, points).sort(dim=1)
    found, rows = nearest_few(queries, points, 5)
    torch.testing.assert_close(found, expected.values[:, :5])
    assert torch.equal(rows, expected.indices[:, :5])
    found, rows = nearest(queries, points)
    torch.testing.assert_close(found, expected.values[:, 0])
    assert torch.equal(rows, expected.indices[:, 0])


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_equal_rows_are_at_distance_0_and_rows_that_differ_in_float32_are_not(scale: float) -> None:
    x = normal(40, 300, 3).abs() * scale
    doubled = torch.cat([x, x])
    assert torch.equal(neighbour_radii(doubled, 1), torch.zeros(80, dtype=torch.float64))
    found, rows = nearest(x, x)
    assert torch.equal(found, torch.zeros(40, dtype=torch.float64))
    assert torch.equal(rows, torch.arange(40))
    close = x * (1 + 1e-5)
    assert (nearest(close, x)[0] > 0).all()
    constant = x[:1].expand(40, -1)
    assert torch.equal(neighbour_radii(constant, 3), torch.zeros(40, dtype=torch.float64))


def test_one_row_far_out_does_not_blur_the_others() -> None:
    x = normal(50, 3, 0)
    outlier = torch.cat([x, torch.full((1, 3), 1e6)])
    torch.testing.assert_close(neighbour_radii(outlier, 2)[:50], neighbour_radii(x, 2), rtol=1e-3, atol=0)


def test_a_sample_finds_its_neighbours_once_for_every_k() -> None:
    x = normal(30, 4, 0)
    sample = Sample(count=30, features=x)
    for k in (3, 5, 10, 12):
        torch.testing.assert_close(sample_radii(sample, k), neighbour_radii(x, k))
    assert len(sample._memory) == 2
    small = Sample(count=4, features=x[:4])
    torch.testing.assert_close(sample_radii(small, 3), neighbour_radii(x[:4], 3))


@pytest.mark.parametrize("k", [0, 4, -1])
def test_impossible_neighbours_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=str(k)):
        neighbour_distances(normal(4, 2, 0), k)
    with pytest.raises(ValueError, match=f"{5 if k == 4 else k} nearest"):
        nearest_few(normal(4, 2, 0), normal(4, 2, 0), 5 if k == 4 else k)


def test_sides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
        nearest(normal(4, 2, 0), normal(4, 3, 0))
    with pytest.raises(ValueError, match="0 and 4"):
        nearest(normal(0, 2, 0), normal(4, 2, 0))


def test_too_few_rows_for_neighbours_are_said_by_side() -> None:
    four, three = (Sample(count=9, features=normal(n, 2, 0)) for n in (4, 3))
    assert too_few_for(3, generated=four, real=four) is None
    assert "real side has 3 features" in str(too_few_for(3, generated=four, real=three))
