"""The tests of two sets of runs against closed forms and properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ganforge.significance import bootstrap_interval, holm, least_p, mann_whitney

numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=7, unique=True)


def test_apart_sets_have_the_smallest_p_there_is() -> None:
    for n, m in ((2, 2), (3, 3), (4, 6)):
        first, second = range(n), range(100, 100 + m)
        assert mann_whitney(list(first), list(second)) == pytest.approx(least_p(n, m))
    assert least_p(3, 3) == pytest.approx(0.1)
    assert least_p(1, 1) == 1


@given(first=numbers, second=numbers)
def test_sides_may_be_exchanged(first: list[float], second: list[float]) -> None:
    assert mann_whitney(first, second) == pytest.approx(mann_whitney(second, first))


def test_p_is_the_share_of_arrangements_that_are_as_extreme() -> None:
    """Closed form for ranks {1, 2, 4} of six: U = 1, reached by 2 of 20 arrangements on each side."""
    assert mann_whitney([1, 2, 4], [3, 5, 6]) == pytest.approx(2 * 2 / math.comb(6, 3))


def test_the_interval_of_two_values_a_side_is_known() -> None:
    """The mean of two resampled values is 0, 1/2 or 1 with 1/4, 1/2, 1/4; the difference's ends have 1/16 each."""
    low, high = bootstrap_interval([10.0, 11.0], [0.0, 1.0], confidence=0.9, resamples=20_000)
    assert (low, high) == (9.0, 11.0)
    low, high = bootstrap_interval([10.0, 11.0], [0.0, 1.0], confidence=0.8, resamples=20_000)
    assert (low, high) == (9.5, 10.5)


def test_the_interval_nears_that_of_the_normal_law() -> None:
    """With 400 values a side the percentile interval is the normal one but for a few hundredths of its width."""
    random = np.random.default_rng(0)
    first, second = random.normal(1, 1, 400), random.normal(0, 2, 400)
    low, high = bootstrap_interval(first.tolist(), second.tolist())
    spread = math.sqrt(first.var() / 400 + second.var() / 400)
    middle = first.mean() - second.mean()
    expected = stats.norm.interval(0.95, middle, spread)
    assert (low, high) == pytest.approx(expected, abs=0.1 * spread)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two values"):
        bootstrap_interval([1.0], [2.0, 3.0])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_lowers(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(min(1.0, v) <= a <= 1 for v, a in zip(values, adjusted, strict=True))
    pairs = sorted(zip(values, adjusted, strict=True))
    assert all(a <= b for (_, a), (_, b) in itertools.pairwise(pairs))
