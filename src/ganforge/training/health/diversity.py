"""Mode collapse: a generator whose images of one class are all alike."""

from __future__ import annotations

from ganforge.training.health.check import Action, Check, Signals

_LEAST_BEST = 0.3
_ADVICE = (
    "penalty=[r1], loss=relativistic, lower learning rates, game.packing=2, or head=minibatch_discrimination"
)


class ModeCollapse(Check):
    """How far generated images of a class lie apart, as a share of how far they did at their best.

    Apart: the mean distance of two, in pixels, as a multiple of that of two real ones, `health/diversity`. The best
    counts for at least 0.3: young generators have less, and it grows.
    """

    worse = "lower"
    advice = _ADVICE

    def __init__(
        self, threshold: float = 0.25, action: Action = "warn", patience: int = 3, grace: int = 20
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        apart = signals.get("health/diversity")
        if apart is None:
            return None
        best: float = max(apart, self.memory.get("best", _LEAST_BEST))
        self.memory["best"] = best
        return apart / best

    def say(self, value: float, signals: Signals) -> str:
        apart = signals["health/diversity"]
        return f"the generator collapses: its images of a class lie {apart:.1%} as far apart as real ones do"


class Duplicates(Check):
    """Share of generated images with another one of their class nearer than a twentieth of what real images have."""

    advice = _ADVICE

    def __init__(
        self, threshold: float = 0.5, action: Action = "warn", patience: int = 3, grace: int = 20
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("health/duplicates")

    def say(self, value: float, signals: Signals) -> str:
        return f"the generator repeats itself: {value:.0%} of its images have a double"
