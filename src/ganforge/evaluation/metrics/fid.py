"""Fréchet Inception distance: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule ..." (1706.08500)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample, Statistics, feature_statistics

_SEED = 2026
_BLOCK = 4096


class FID(Metric):
    """Fréchet distance of the Gaussians with the means and covariances of the two sides' features.

    fid: see `frechet_distance`. In units of squared features; at least 0 up to rounding, and 0 for equal statistics.
    Few images raise it: with n images in D dimensions it is far from its limit until n is many times D.

    fid_real_halves: the same between two fixed random halves of the real features: what real images score, and so
    the scale on which to read fid. Left out where real features are unknown or fewer than 4.

    fid_low, fid_high: a 95% interval, fid ± 1.96 standard errors, for bootstrap > 0; left out where generated features
    are unknown. The standard error is that of the FID of `bootstrap` resamples of the generated features with the real
    side fixed: it says how much the draw of the generated images matters, and nothing of that of the real ones, nor of
    the bias of few images. The interval is centred on fid because resampling itself, which leaves out a third of the
    images, biases the resamples' FID upwards. Where that bias is much of fid (images fewer than or about as many as D,
    or two sides that nearly agree) the interval is too wide, by up to a factor of about 2.

    Args:
        bootstrap: number of resamples, 0 for none, otherwise at least 2. Each costs one eigenvalue problem of size D.
    """

    generated_needs = ("statistics",)
    real_needs = ("statistics",)

    def __init__(self, bootstrap: int = 0) -> None:
        if bootstrap < 0 or bootstrap == 1:
            raise ValueError(
                f"bootstrap={bootstrap}: it has to be 0 for no interval, or at least 2 resamples"
            )
        self.bootstrap = bootstrap

    @property
    def figures(self) -> Mapping[str, Better]:
        names: dict[str, Better] = {"fid": "lower", "fid_real_halves": "neither"}
        return names | ({"fid_low": "lower", "fid_high": "lower"} if self.bootstrap else {})

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        root = real.once(("fid", "root"), lambda: covariance_root(real.statistics.sigma))
        fid = frechet_distance(generated.statistics, real.statistics, root)
        values = {"fid": fid}
        if real.features is not None and len(real.features) >= 4:
            features = real.features
            values["fid_real_halves"] = real.once(("fid", "real halves"), lambda: _fid_of_halves(features))
        if self.bootstrap and generated.features is not None:
            resamples = bootstrap_distances(generated.features, real.statistics, root, self.bootstrap)
            margin = 1.96 * float(np.std(resamples, ddof=1))
            values |= {"fid_low": fid - margin, "fid_high": fid + margin}
        return values


def frechet_distance(first: Statistics, second: Statistics, root: NDArray[np.float64] | None = None) -> float:
    """|mu1 - mu2|² + Tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^½): equation 6 of the paper.

    With sigma2 = Rᵀ R the eigenvalues of sigma1 sigma2 are those of R sigma1 Rᵀ, which is symmetric and positive
    semidefinite: real eigenvalues at a fraction of the cost of the product's, and exact for singular covariances too.

    Args:
        first, second: means (D,) and covariances (D, D) of any float type; computed in float64.
        root: `covariance_root` of the second covariance, where it is at hand.

    Raises:
        ValueError: the dimensions differ.
    """
    if len(first.mu) != len(second.mu):
        raise ValueError(f"features of {len(first.mu)} and {len(second.mu)} dimensions are not comparable")
    if root is None:
        root = covariance_root(second.sigma)
    difference = first.mu.astype(np.float64) - second.mu.astype(np.float64)
    sigma = first.sigma.astype(np.float64, copy=False)
    cross = _trace_of_root(root @ sigma @ root.T)
    return float(
        difference @ difference + np.trace(sigma) + np.trace(second.sigma, dtype=np.float64) - 2 * cross
    )


def covariance_root(sigma: NDArray[np.floating]) -> NDArray[np.float64]:
    """R, float64 (r, D), with Rᵀ R = sigma: a row for each of its r positive eigenvalues."""
    values, vectors = scipy.linalg.eigh(sigma.astype(np.float64, copy=False))
    positive = values > 0
    root: NDArray[np.float64] = np.sqrt(values[positive])[:, None] * vectors.T[positive]
    return root


def fid_of_real_subset(real: Sample, n: int) -> float:
    """What real images score at n images: FID of a fixed random subset of them against all the others.

    Args:
        real: with features, at least 4 of them.
        n: how many; lowered to half of the real features, so that as many are left to compare with.

    Raises:
        ValueError: n < 2, or fewer than 4 real features.
    """
    features = real.features
    rows = 0 if features is None else len(features)
    if features is None or n < 2 or rows < 4:
        raise ValueError(f"no FID of {n} of {rows} real images: it takes at least 2 of at least 4")
    n = min(n, rows // 2)
    return real.once(("fid", "real subset", n), lambda: _fid_of_split(features, n, rows))


def bootstrap_distances(
    features: Tensor, real: Statistics, root: NDArray[np.float64], resamples: int
) -> NDArray[np.float64]:
    """FID of each of `resamples` draws of N rows, with replacement, of features float32 (N, D)."""
    values = features.numpy()
    random = np.random.RandomState(_SEED)
    distances = np.zeros(resamples)
    for i in range(resamples):
        counts = np.bincount(random.randint(len(values), size=len(values)), minlength=len(values))
        distances[i] = frechet_distance(_weighted_statistics(values, counts), real, root)
    return distances


def _weighted_statistics(values: NDArray[np.float32], counts: NDArray[np.int64]) -> Statistics:
    """Mean and unbiased covariance where row i occurs counts[i] times."""
    total = counts.sum()
    mu = np.zeros(values.shape[1])
    for start in range(0, len(values), _BLOCK):
        mu += counts[start : start + _BLOCK] @ values[start : start + _BLOCK].astype(np.float64)
    mu /= total
    sigma = np.zeros((len(mu), len(mu)))
    for start in range(0, len(values), _BLOCK):
        block = (values[start : start + _BLOCK] - mu) * np.sqrt(counts[start : start + _BLOCK])[:, None]
        sigma += block.T @ block
    return Statistics(mu, sigma / (total - 1))


def _fid_of_halves(features: Tensor) -> float:
    half = len(features) // 2
    return _fid_of_split(features, half, 2 * half)


def _fid_of_split(features: Tensor, first: int, stop: int) -> float:
    """FID of rows 0..first of a fixed random order against rows first..stop."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(_SEED))
    return frechet_distance(
        feature_statistics(features, order[:first]), feature_statistics(features, order[first:stop])
    )


def _trace_of_root(matrix: NDArray[np.float64]) -> float:
    """Tr matrix^½ of a symmetric positive semidefinite matrix; eigenvalues below 0 are rounding."""
    if len(matrix) == 0:
        return 0.0
    eigenvalues = scipy.linalg.eigvalsh(matrix, overwrite_a=True, check_finite=False)
    return float(np.sqrt(np.maximum(eigenvalues, 0)).sum())
