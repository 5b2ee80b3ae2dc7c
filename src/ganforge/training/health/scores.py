"""What evaluations say of a run: a score that turned back, coverage that falls, copies, classes that are ignored."""

from __future__ import annotations

from typing import Any

from ganforge.training.health.check import Action, Check, Signals


class TurnedBack(Check):
    """How many times worse a score, lower for better, is than its best so far.

    Args:
        figure: of the evaluation.
    """

    advice = "best.ckpt has the best; stop.patience_kimg=... ends a run in time; augment=ada or a decaying schedule"

    def __init__(
        self, figure: str = "fid", threshold: float = 1.5, action: Action = "warn", patience: int = 2
    ) -> None:
        super().__init__(threshold, action, patience)
        self.figure = figure

    def measure(self, signals: Signals) -> float | None:
        value = signals.get(f"scores/{self.figure}")
        if value is None:
            return None
        best = self.memory["best"] = min(value, _best(self.memory, signals, value))
        return value / best if best > 0 else None

    def say(self, value: float, signals: Signals) -> str:
        now, best = signals[f"scores/{self.figure}"], self.memory["best"]
        return f"{self.figure} turned back: it is {now:.4g} and was {best:.4g} at its best"


class CoverageFalls(Check):
    """A figure of evaluation, higher for better, as a share of its best so far.

    Args:
        figure: coverage, or recall, modes_covered.
        from_best: looks once the best was that good: what is next to nothing goes up and down.
    """

    worse = "lower"
    advice = "modes are being lost: penalty=[r1], loss=relativistic, game.packing=2; best.ckpt may have them"

    def __init__(
        self,
        figure: str = "coverage",
        threshold: float = 0.6,
        action: Action = "warn",
        patience: int = 2,
        from_best: float = 0.2,
    ) -> None:
        super().__init__(threshold, action, patience)
        self.figure = figure
        self.from_best = from_best

    def measure(self, signals: Signals) -> float | None:
        value = signals.get(f"scores/{self.figure}")
        if value is None:
            return None
        best = self.memory["best"] = max(value, _best(self.memory, signals, value))
        return value / best if best >= self.from_best else None

    def say(self, value: float, signals: Signals) -> str:
        now, best = signals[f"scores/{self.figure}"], self.memory["best"]
        return f"{self.figure} falls: it is {now:.3g} and was {best:.3g} at its best"


class Memorisation(Check):
    """`memorisation` of evaluation: 0.5 for new images, 1 for copies of training images.

    Given by metrics.compute=[...,memorisation].
    """

    advice = "more images, augment=ada or diffaugment, a smaller generator, or an earlier end"

    def __init__(self, threshold: float = 0.75, action: Action = "warn", patience: int = 1) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("scores/memorisation")

    def say(self, value: float, signals: Signals) -> str:
        return (
            f"the generator copies: of a generated and a real image, the generated one is nearer to a training image "
            f"{value:.0%} of the time"
        )


class ClassesIgnored(Check):
    """Class consistency of evaluation, above what guessing gives, as a share of the way to 1."""

    worse = "lower"
    advice = "look at the data's labels; another head=..., or conditional=false"

    def __init__(
        self, threshold: float = 0.05, action: Action = "warn", patience: int = 3, grace: int = 6
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        value, classes = signals.get("scores/class_consistency"), signals.get("num_classes", 0)
        if value is None or classes < 2:
            return None
        return (value - 1 / classes) / (1 - 1 / classes)

    def say(self, value: float, signals: Signals) -> str:
        consistency = signals["scores/class_consistency"]
        return f"classes are ignored: {consistency:.0%} of the images are of the class that was asked for"


def _best(memory: dict[str, Any], signals: Signals, value: float) -> float:
    """The best score before; the present one where networks have grown since: larger images are another task."""
    size, memory["size"] = memory.get("size"), signals.get("health/size")
    best: float = memory.get("best", value) if memory["size"] == size else value
    return best
