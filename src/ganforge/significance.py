"""Whether two sets of runs differ by more than their seeds do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p value of Mann & Whitney's U test (1947): exact for few runs without ties.

    U counts the pairs in which a value of `first` is the larger one. The test looks at ranks only: no law of the values
    is assumed.
    """
    return float(stats.mannwhitneyu(first, second, alternative="two-sided").pvalue)


def least_p(first: int, second: int) -> float:
    """The smallest p value that so many runs can give, 2 / C(n + m, n): 0.1 for three against three."""
    return min(2 / math.comb(first + second, first), 1.0)


def bootstrap_interval(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of mean(first) - mean(second), each resampled with replacement (Efron 1979).

    Raises:
        ValueError: fewer than two values on a side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("an interval needs at least two values on each side")
    found = stats.bootstrap(
        (np.asarray(first, float), np.asarray(second, float)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        vectorized=True,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number m (Holm 1979): the k-th smallest times m - k + 1, and never below the last."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = largest
    return adjusted
