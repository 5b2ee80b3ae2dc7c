"""MIND against Wasserstein distances by repeated values, and the closed form of shifted Gaussians."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ganforge.evaluation.metrics import mind
from ganforge.evaluation.metrics.mind import MIND, squared_wasserstein, unit_directions
from ganforge.evaluation.sample import Sample


def normal(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def sample(values: Tensor) -> Sample:
    return Sample(count=len(values), features=values)


def by_repetition(a: Tensor, b: Tensor) -> Tensor:
    """Both sides' values repeated to the least common multiple of their numbers, sorted and paired: the definition."""
    both = math.lcm(a.shape[1], b.shape[1])
    x, y = (v.double().sort(dim=1).values.repeat_interleave(both // v.shape[1], dim=1) for v in (a, b))
    return (x - y).square().mean(dim=1)


@given(n=st.integers(1, 40), m=st.integers(1, 40), seed=st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_the_distance_in_one_dimension_is_exact_for_any_two_numbers(n: int, m: int, seed: int) -> None:
    a, b = normal(3, n, seed).sort().values, normal(3, m, seed + 1).sort().values + 0.5
    expected = by_repetition(a, b)
    torch.testing.assert_close(squared_wasserstein(a, b), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(squared_wasserstein(b, a), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kept_bytes", [0, 2**28], ids=["sorted anew", "sorted once"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("n", "m", "width", "projections"), [(50, 50, 8, 70), (50, 36, 8, 70), (4, 101, 3, 1), (9, 2, 1, 5)]
)
def test_equals_float64_over_the_same_directions(
    n: int, m: int, width: int, projections: int, seed: int, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mind, "_KEPT_BYTES", kept_bytes)
    x, y = 2 * normal(n, width, seed) + 10, normal(m, width, seed + 100) + 10.2
    directions = unit_directions(projections, width, seed).double()
    expected = 3 * width * by_repetition(directions @ x.T.double(), directions @ y.T.double()).mean()
    real = sample(y)
    for _ in range(2):
        assert MIND(projections, seed)(sample(x), real)["mind"] == pytest.approx(float(expected), rel=1e-5)


def test_shifted_gaussians_are_at_three_times_their_squared_distance() -> None:
    shift = torch.tensor([3.0, 0, -1, 0, 2, 0, 0, 0])
    x, y = normal(2000, 8, 0) + shift, normal(1500, 8, 1)
    assert MIND(2000)(sample(x), sample(y))["mind"] == pytest.approx(3 * 14, rel=0.12)
    # The same rows, moved: every projection moves by direction·shift, with no error of the draw.
    directions = unit_directions(1000, 8, 0).double()
    expected = 24 * (directions @ shift.double()).square().mean()
    assert MIND()(sample(y + shift), sample(y))["mind"] == pytest.approx(float(expected), rel=1e-5)


def test_scaled_gaussians_are_at_three_times_their_squared_distance() -> None:
    # W2² of N(0, 4) and N(0, 1) is 1 on every direction.
    assert MIND()(sample(2 * normal(5000, 6, 0)), sample(normal(5000, 6, 1)))["mind"] == pytest.approx(
        18, rel=0.06
    )


def test_equal_sets_are_at_distance_0_in_any_order_and_number() -> None:
    x = normal(60, 5, 0)
    assert MIND(50)(sample(x), sample(x))["mind"] == 0
    assert MIND(50)(sample(x.flip(0)), sample(x))["mind"] == pytest.approx(0, abs=1e-10)
    assert MIND(50)(sample(x.repeat(3, 1)), sample(x))["mind"] == pytest.approx(0, abs=1e-10)


def test_a_constant_image() -> None:
    x, constant = normal(500, 6, 0), torch.full((7, 6), 2.0)
    directions = unit_directions(300, 6, 0).double()
    expected = 18 * ((x.double() - 2) @ directions.T).square().mean()
    assert MIND(300)(sample(constant), sample(x))["mind"] == pytest.approx(float(expected), rel=1e-5)


def test_directions_are_unit_uniform_and_fixed() -> None:
    directions = unit_directions(20_000, 3, 1)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(20_000))
    np.testing.assert_allclose(directions.T @ directions / 20_000, np.eye(3) / 3, atol=0.01)
    assert torch.equal(directions, unit_directions(20_000, 3, 1))
    assert not torch.equal(directions[:5], unit_directions(5, 3, 2))


def test_impossible_projections_are_refused() -> None:
    with pytest.raises(ValueError, match="projections=0"):
        MIND(0)
