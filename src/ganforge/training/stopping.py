"""When a run ends before its total: a target reached, or no better score for too long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ganforge.evaluation.metrics.metric import Better


class Stopping:
    """Ends a run at an evaluation.

    Args:
        targets: a figure and the value that is good enough; any one that is reached ends the run.
        metric: the figure that has to get better; None for `monitor`.
        patience_kimg: thousands of images without a better value of `metric` after which the run ends; None for no end.
        figures: the evaluator's figures and which way each is better.
        monitor: the evaluator's own choice.

    Raises:
        ValueError: a figure that the evaluator does not give, or that has no better side.
    """

    def __init__(
        self,
        targets: Mapping[str, float],
        metric: str | None,
        patience_kimg: float | None,
        figures: Mapping[str, Better],
        monitor: str,
    ) -> None:
        self.targets = dict(targets)
        self.metric = metric or monitor
        self.patience_kimg = patience_kimg
        self.figures = figures
        asked = [*targets, *([self.metric] if patience_kimg is not None else [])]
        sided = [name for name, better in figures.items() if better != "neither"]
        for name in asked:
            if name not in sided:
                there = f"it can be {', '.join(sided)}" if sided else "these metrics give none"
                raise ValueError(f"stop.{name}: there is no such figure to stop by; {there}")
        if patience_kimg is not None and not patience_kimg > 0:
            raise ValueError(f"stop.patience_kimg={patience_kimg} must be greater than 0")
        self._best = math.nan
        self._best_kimg = 0.0

    def reason(self, scores: Mapping[str, float], kimg: float) -> str | None:
        """Why the run ends after this evaluation, in words; None when it goes on."""
        for name, target in self.targets.items():
            value = scores.get(name, math.nan)
            if value == target or self._better(name, value, target):
                return f"{name} {value:.4g} reached its target {target:g}"
        if self.patience_kimg is None:
            return None
        value = scores.get(self.metric, math.nan)
        if math.isnan(self._best) or self._better(self.metric, value, self._best):
            self._best, self._best_kimg = value, kimg
        elif kimg - self._best_kimg >= self.patience_kimg:
            return (
                f"{self.metric} has not been better than {self._best:.4g}, its value at "
                f"{self._best_kimg:g} kimg, for {kimg - self._best_kimg:g} kimg"
            )
        return None

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "best_kimg": self._best_kimg}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._best, self._best_kimg = state["best"], state["best_kimg"]

    def _better(self, name: str, value: float, than: float) -> bool:
        return is_better(self.figures[name], value, than)


def is_better(better: Better, value: float, than: float) -> bool:
    """Whether `value` is strictly better; never where either is NaN, and never without a better side."""
    return value < than if better == "lower" else better == "higher" and value > than
