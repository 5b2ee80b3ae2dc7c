"""Real images in the wrong range: networks that end in tanh give numbers from -1 to 1."""

from __future__ import annotations

from ganforge.training.health.check import Action, Check, Signals

_LOWEST, _HIGHEST = "health/lowest_pixel", "health/highest_pixel"
_ADVICE = "images are uint8 from 0 to 255, or float32 from -1 to 1: look at how the data set was made"


class PixelsOutside(Check):
    """The largest absolute value in real images, which may be 1."""

    advice = _ADVICE
    _margin = 0.0

    def __init__(self, threshold: float = 1.01, action: Action = "warn", patience: int = 1) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return max(-signals[_LOWEST], signals[_HIGHEST]) if _LOWEST in signals else None

    def say(self, value: float, signals: Signals) -> str:
        return f"real images leave [-1, 1]: they go from {signals[_LOWEST]:.3g} to {signals[_HIGHEST]:.3g}"


class PixelsNarrow(Check):
    """Share of the range from -1 to 1 that real images use, and of its lower half: the smaller one.

    Pictures have something dark in them; numbers from 0 to 1 have not, and images of one grey have no range at all.
    """

    worse = "lower"
    advice = _ADVICE

    def __init__(self, threshold: float = 0.25, action: Action = "warn", patience: int = 1) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        if _LOWEST not in signals:
            return None
        return min((signals[_HIGHEST] - signals[_LOWEST]) / 2, -signals[_LOWEST])

    def say(self, value: float, signals: Signals) -> str:
        what = "are constant" if signals[_HIGHEST] == signals[_LOWEST] else "use little of [-1, 1]"
        return f"real images {what}: they go from {signals[_LOWEST]:.3g} to {signals[_HIGHEST]:.3g}"
