"""Kernel Inception distance: Bińkowski et al. 2018, "Demystifying MMD GANs" (1801.01401)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample

Features = NDArray[np.float32]
Kernel = Callable[[Features, Features], NDArray[np.float32]]
"""Rows (n, D) and (m, D) -> kernel of all pairs (n, m)."""

_SUBSETS_SEED = 2020  # torch-fidelity's
_BOOTSTRAP_SEED = 2026
_BOOTSTRAP_ROWS = 2000


class KID(Metric):
    """Squared maximum mean discrepancy of the two sides' features: section 4 and equation 4 of the paper.

    kid_mean, kid_std: mean and standard deviation, over random subsets of both sides, of the unbiased estimate

        MMD² = sum_{i≠j} k(x_i, x_j) / (m (m - 1)) + sum_{i≠j} k(y_i, y_j) / (m (m - 1)) - 2 sum_{ij} k(x_i, y_j) / m²

    with m rows a subset. kid_mean is 0 on average for equal distributions, whatever the number of images, and so may
    be below 0. The subsets are torch-fidelity's. They overlap, so kid_std / √subsets is not the error of kid_mean.

    kid_low, kid_high: a 95% interval, kid_mean ± 1.96 standard errors, for bootstrap > 0: see `bootstrap_error`.

    Args:
        kernel: "poly": (gamma x·y + coef0)^degree, the paper's; "rbf": exp(-|x - y|² / (2 sigma²)).
        subsets: how many, at least 1.
        subset_size: rows of each, at least 2; lowered to those of the smaller side.
        degree: of "poly", at least 1.
        gamma: of "poly", above 0; None for 1/D.
        coef0: of "poly".
        sigma: of "rbf", above 0, in units of the features.
        bootstrap: number of resamples, 0 for none, otherwise at least 2.
        prefix: first part of the figures' names.
    """

    def __init__(
        self,
        kernel: Literal["poly", "rbf"] = "poly",
        subsets: int = 100,
        subset_size: int = 1000,
        degree: int = 3,
        gamma: float | None = None,
        coef0: float = 1.0,
        sigma: float = 10.0,
        bootstrap: int = 0,
        prefix: str = "kid",
    ) -> None:
        if kernel not in ("poly", "rbf"):
            raise ValueError(f"kernel={kernel!r}: it has to be 'poly' or 'rbf'")
        for name, value, fewest in (
            ("subsets", subsets, 1),
            ("subset_size", subset_size, 2),
            ("degree", degree, 1),
        ):
            if value < fewest or value != int(value):
                raise ValueError(f"{name}={value}: it has to be a whole number of at least {fewest}")
        if gamma is not None and not gamma > 0:
            raise ValueError(
                f"gamma={gamma}: it has to be above 0, or null for one over the number of features"
            )
        if not sigma > 0:
            raise ValueError(f"sigma={sigma}: it has to be above 0")
        if bootstrap < 0 or bootstrap == 1:
            raise ValueError(
                f"bootstrap={bootstrap}: it has to be 0 for no interval, or at least 2 resamples"
            )
        self.kernel = kernel
        self.subsets = subsets
        self.subset_size = subset_size
        if kernel == "poly":
            self.degree, self.gamma, self.coef0 = degree, gamma, coef0
            self._kernel: Kernel = partial(polynomial_kernel, degree=degree, gamma=gamma, coef0=coef0)
        else:
            self.sigma = sigma
            self._kernel = partial(gaussian_kernel, sigma=sigma)
        self.bootstrap = bootstrap
        self._prefix = prefix
        self._key = ("kid", kernel, degree, gamma, coef0, sigma)

    @property
    def figures(self) -> Mapping[str, Better]:
        names: dict[str, Better] = {f"{self._prefix}_mean": "lower", f"{self._prefix}_std": "neither"}
        bounds: dict[str, Better] = {f"{self._prefix}_low": "lower", f"{self._prefix}_high": "lower"}
        return names | bounds if self.bootstrap else names

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        x, y = _rows(generated.features), _rows(real.features)
        draws = len(x), len(y), self.subsets, min(self.subset_size, len(x), len(y))
        within_real = real.once((*self._key, *draws), lambda: self._within_real(y, *draws))
        estimates = subset_discrepancies(x, y, self._kernel, *draws[2:], within_real)
        mean, std = float(estimates.mean()), float(estimates.std())
        values = {f"{self._prefix}_mean": mean, f"{self._prefix}_std": std}
        if self.bootstrap:
            # The subsets are themselves a random choice of rows.
            error = np.hypot(bootstrap_error(x, y, self._kernel, self.bootstrap), std / np.sqrt(self.subsets))
            values |= {
                f"{self._prefix}_low": float(mean - 1.96 * error),
                f"{self._prefix}_high": float(mean + 1.96 * error),
            }
        return values

    def _within_real(self, y: Features, n: int, m: int, subsets: int, size: int) -> NDArray[np.float32]:
        return np.array([_sum_of_pairs(self._kernel, y[rows]) for _, rows in _draws(n, m, subsets, size)])


def polynomial_kernel(
    x: Features, y: Features, degree: int, gamma: float | None, coef0: float
) -> NDArray[np.float32]:
    """(gamma x·y + coef0)^degree of all pairs of rows, by products: a power takes nine tenths of the time."""
    base: NDArray[np.float32] = x @ y.T
    base *= 1 / x.shape[1] if gamma is None else gamma
    base += coef0
    kernel = base.copy()
    for _ in range(degree - 1):
        kernel *= base
    return kernel


def gaussian_kernel(x: Features, y: Features, sigma: float) -> NDArray[np.float32]:
    """exp(-|x - y|² / (2 sigma²)) of all pairs of rows."""
    exponent: NDArray[np.float32] = x @ y.T
    exponent *= 2
    exponent -= np.square(x).sum(axis=1)[:, None]
    exponent -= np.square(y).sum(axis=1)
    exponent /= 2 * sigma**2
    return np.exp(exponent, out=exponent)


def subset_discrepancies(
    x: Features, y: Features, kernel: Kernel, subsets: int, size: int, within_y: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The unbiased MMD² of each pair of subsets, float64 (subsets,).

    Args:
        x, y: float32 (n, D) and (m, D).
        size: rows of each subset, at least 2.
        within_y: for each subset, the sum of the kernel over all pairs of different rows of y's.
    """
    estimates = np.zeros(subsets)
    for i, (a, b) in enumerate(_draws(len(x), len(y), subsets, size)):
        own = _sum_of_pairs(kernel, x[a]) + within_y[i]
        cross = kernel(x[a], y[b]).sum(axis=0).sum()
        estimates[i] = own / (size * (size - 1)) - 2 * cross / size**2
    return estimates


def bootstrap_error(x: Features, y: Features, kernel: Kernel, resamples: int) -> float:
    """Standard error of the MMD² for the draw of the generated images, the real ones being fixed.

    It is the standard deviation of the estimate over resamples, with replacement, of at most 2,000 generated rows
    against at most 2,000 real ones, brought to all n rows by the square root of the numbers' ratio.

    Args:
        x, y: generated and real features, float32 (n, D) and (m, D).
        resamples: at least 2.
    """
    random = np.random.RandomState(_BOOTSTRAP_SEED)
    n = min(len(x), _BOOTSTRAP_ROWS)
    a = x[random.permutation(len(x))[:n]]
    b = y[random.permutation(len(y))[:_BOOTSTRAP_ROWS]]
    own = kernel(a, a).astype(np.float64)
    np.fill_diagonal(own, 0)
    cross = kernel(a, b).mean(axis=1, dtype=np.float64)
    estimates = np.zeros(resamples)
    for i in range(resamples):
        counts = np.bincount(random.randint(n, size=n), minlength=n).astype(np.float64)
        estimates[i] = counts @ own @ counts / (n * (n - 1)) - 2 * counts @ cross / n
    return float(np.std(estimates, ddof=1) * np.sqrt(n / len(x)))


def _draws(n: int, m: int, subsets: int, size: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of the two sides' subsets, from one stream: torch-fidelity's order."""
    random = np.random.RandomState(_SUBSETS_SEED)
    return [
        (random.choice(n, size, replace=False), random.choice(m, size, replace=False)) for _ in range(subsets)
    ]


def _sum_of_pairs(kernel: Kernel, x: Features) -> np.float32:
    """The kernel's sum over all pairs of different rows.

    MMD² is a small difference of such sums; they are float32, and in this order, because torch-fidelity's are: a KID
    near 0 would else differ from its by their rounding.
    """
    values = kernel(x, x)
    total: np.float32 = (values.sum(axis=1) - np.diagonal(values)).sum()
    return total


def _rows(features: Tensor | None) -> Features:
    assert features is not None
    rows: Features = features.numpy()
    return rows
