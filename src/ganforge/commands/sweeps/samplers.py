"""Samplers beside Optuna's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.samplers import BaseSampler, GridSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


def auto(directions: Sequence[str], seed: int | None = None) -> BaseSampler:
    """TPE for one metric, NSGA-II for several."""
    return TPESampler(seed=seed) if len(directions) == 1 else NSGAIISampler(seed=seed)


class Grid(GridSampler):
    """Every combination once; the order is the same for all drivers of a study."""

    def __init__(self, search_space: dict[str, list[Any]]) -> None:
        super().__init__(search_space)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Optuna's would stop its own loop at the last point, which is not in use here."""
