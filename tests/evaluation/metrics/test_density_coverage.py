"""Density and coverage against float64 differences by the paper's formulas, and sets whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganforge.evaluation.metrics import distances
from ganforge.evaluation.metrics.density_coverage import DensityCoverage
from ganforge.evaluation.sample import Sample


def normal(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def figures(generated: Tensor, real: Tensor, neighbourhood: int = 5) -> dict[str, float]:
    x, y = (Sample(count=len(values), features=values) for values in (generated, real))
    return DensityCoverage(neighbourhood)(x, y)


@pytest.mark.parametrize("block", [50, 1024])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("n", "m", "width", "k"), [(300, 200, 8, 5), (90, 150, 64, 3), (4, 6, 2, 5), (1, 50, 2, 1)]
)
def test_equals_the_formulas_in_float64(
    n: int, m: int, width: int, k: int, seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "_BLOCK", block)
    x, y = 0.9 * normal(n, width, seed), normal(m, width, seed + 100)
    radii = (y[:, None].double() - y[None].double()).norm(dim=2).sort(dim=1).values[:, k]
    inside = (x[:, None].double() - y[None].double()).norm(dim=2) < radii
    values = figures(x, y, k)
    assert values["density"] == pytest.approx(float(inside.sum()) / (k * n), rel=1e-12)
    assert values["coverage"] == pytest.approx(float(inside.any(0).double().mean()), rel=1e-12)


@pytest.mark.parametrize("width", [2, 512])
def test_equal_sets_and_sets_apart(width: int) -> None:
    x = normal(100, width, 0)
    assert figures(x, x) == {"density": 1, "coverage": 1}
    assert figures(x, x.flip(0)) == {"density": 1, "coverage": 1}
    assert figures(x + 1000, x) == {"density": 0, "coverage": 0}


def test_equal_real_images_are_covered_by_their_copies() -> None:
    real = normal(5, 300, 0).repeat(20, 1)
    assert figures(real, real)["coverage"] == 1
    assert figures(real[:2], real)["coverage"] == pytest.approx(0.4)


def test_real_images_score_1() -> None:
    values = figures(normal(2000, 4, 0), normal(2000, 4, 1))
    assert values["density"] == pytest.approx(1, abs=0.05)
    # Section 4.2 of the paper: 1 - 2^-5 in expectation for equally many images of one distribution.
    assert values["coverage"] == pytest.approx(1 - 2**-5, abs=0.02)


def test_a_stray_real_image_moves_precision_and_not_density() -> None:
    real, generated = normal(500, 2, 0), 5 * normal(500, 2, 1)
    stray = torch.cat([real, torch.tensor([[30.0, 30.0]])])
    assert figures(generated, stray)["density"] - figures(generated, real)["density"] < 0.25


def test_needs_more_real_features_than_neighbours() -> None:
    five, six = (Sample(count=9, features=normal(n, 2, 0)) for n in (5, 6))
    assert DensityCoverage(5).lacks(five, six) is None
    assert "real side has 5 features" in str(DensityCoverage(5).lacks(six, five))


def test_impossible_neighbourhoods_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbourhood=-1"):
        DensityCoverage(-1)
