"""Mode collapse: a generator whose images of one class are all alike."""

from __future__ import annotations

from ganforge.training.health.check import Action, Check, Signals

_ADVICE = (
    "penalty=[r1], loss=relativistic, lower learning rates, game.packing=2, or head=minibatch_discrimination"
)


class ModeCollapse(Check):
    """Mean distance between two generated images of a class, as a share of that between two real ones, in pixels."""

    worse = "lower"
    advice = _ADVICE

    def __init__(
        self, threshold: float = 0.4, action: Action = "warn", patience: int = 3, grace: int = 20
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("health/diversity")

    def say(self, value: float, signals: Signals) -> str:
        return f"the generator collapses: its images of a class lie {value:.0%} as far apart as real ones do"


class Duplicates(Check):
    """Share of generated images with another one of their class nearer than a fifth of what real images have."""

    advice = _ADVICE

    def __init__(
        self, threshold: float = 0.5, action: Action = "warn", patience: int = 3, grace: int = 20
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("health/duplicates")

    def say(self, value: float, signals: Signals) -> str:
        return f"the generator repeats itself: {value:.0%} of its images have a double"
