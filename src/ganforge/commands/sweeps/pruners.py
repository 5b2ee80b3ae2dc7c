"""Optuna's pruners with times in thousands of images; their steps are images."""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PercentilePruner


def median(startup_trials: int = 5, warmup_kimg: float = 0.0) -> BasePruner:
    """Ends a trial whose best figure so far is worse than the median of the others' at the same time."""
    return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=_images(warmup_kimg))


def percentile(percentile: float, startup_trials: int = 5, warmup_kimg: float = 0.0) -> BasePruner:
    """Ends a trial whose best figure so far is not among the best `percentile` per cent of the others'."""
    return PercentilePruner(percentile, n_startup_trials=startup_trials, n_warmup_steps=_images(warmup_kimg))


def hyperband(min_kimg: float, max_kimg: float, reduction_factor: int = 3) -> BasePruner:
    """Successive halving in brackets (Li et al. 2018, arXiv 1603.06560).

    Args:
        min_kimg: the shortest time after which a trial may be ended.
        max_kimg: the time of a whole run.
        reduction_factor: one in so many goes on, and for so many times as long.
    """
    if not 0 < min_kimg <= max_kimg:
        raise ValueError(f"min_kimg={min_kimg:g} should be greater than 0 and at most max_kimg={max_kimg:g}")
    return HyperbandPruner(
        min_resource=_images(min_kimg), max_resource=_images(max_kimg), reduction_factor=reduction_factor
    )


def _images(kimg: float) -> int:
    return max(0, round(kimg * 1000))
