"""Gradients that explode or vanish, weights that leap or stand still, singular values that blow up."""

from __future__ import annotations

import math

from ganforge.training.health.check import Action, Check, Signals, times_usual

SIDES = ("discriminator", "generator")
_READINGS = 5


class GradientExplosion(Check):
    """A side's gradient norm as a multiple of its usual one, the median of the readings before; the larger of both."""

    advice = "clip_norm.discriminator=1 and clip_norm.generator=1, a lower learning rate, or penalty=[r1]"

    def __init__(self, threshold: float = 30.0, action: Action = "warn", patience: int = 3) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        ratios = _ratios(self, signals)
        return max(ratios.values()) if ratios else None

    def say(self, value: float, signals: Signals) -> str:
        norms = " and ".join(f"{norm:.3g} of the {side}" for side, norm in _norms(signals).items())
        return f"gradients explode: a norm is {value:.3g} times its usual one; now {norms}"


class GradientVanishing(Check):
    """Likewise, and the smaller of both."""

    worse = "lower"
    advice = "loss=nonsaturating or relativistic in place of minimax, a penalty on the discriminator, or a weaker one"

    def __init__(self, threshold: float = 1e-3, action: Action = "warn", patience: int = 3) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        ratios = _ratios(self, signals)
        return min(ratios.values()) if ratios else None

    def say(self, value: float, signals: Signals) -> str:
        norms = " and ".join(f"{norm:.3g} of the {side}" for side, norm in _norms(signals).items())
        return f"gradients vanish: a norm is {value:.3g} times its usual one; now {norms}"


class StepsTooLarge(Check):
    """How far a side's weights move in a round, as a share of their own norm: the larger of both."""

    advice = "learning rates ten times lower: optimizer.generator.lr=... and optimizer.discriminator.lr=..."

    def __init__(self, threshold: float = 0.05, action: Action = "warn", patience: int = 2) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return max(_of_sides(signals, "movement").values(), default=None)

    def say(self, value: float, signals: Signals) -> str:
        moves = _of_sides(signals, "movement")
        side = max(moves, key=lambda each: moves[each])
        return f"steps are too large: the {side}'s weights change by {value:.2g} of their norm each round"


class NotLearning(Check):
    """Likewise, and the smaller of both: a side that stands still learns nothing."""

    worse = "lower"
    advice = "look at its learning rate, at its schedule's end, and whether gradients reach it"

    def __init__(self, threshold: float = 1e-9, action: Action = "warn", patience: int = 2) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return min(_of_sides(signals, "movement").values(), default=None)

    def say(self, value: float, signals: Signals) -> str:
        still = [side for side, move in _of_sides(signals, "movement").items() if move < self.threshold]
        return f"no learning: the weights of the {' and of the '.join(still)} do not change"


class SpectralNorm(Check):
    """A side's largest singular value of a weight, as a multiple of its least in the five readings before.

    The larger of both sides'. It grows in healthy runs too, but slowly.

    Brock et al. 2019, "Large Scale GAN Training", arXiv 1809.11096, section 4: the first singular values of the
    generator's layers leap when training collapses. Weights under spectral normalisation are left out.
    """

    advice = (
        "a lower learning rate, model=sngan or another one with spectral norm, penalty=[r1] or [orthogonal]"
    )

    def __init__(self, threshold: float = 10.0, action: Action = "warn", patience: int = 2) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        ratios = []
        for side, growth in _of_sides(signals, "spectral_growth").items():
            before: list[float] = self.memory.get(side, [1.0])  # at the start
            ratios.append(growth / min(before))
            self.memory[side] = [*before, growth][-_READINGS:]
        return max(ratios, default=None)

    def say(self, value: float, signals: Signals) -> str:
        norms = _of_sides(signals, "spectral_norm")
        now = " and ".join(f"{norm:.3g} in the {side}" for side, norm in norms.items())
        return (
            f"singular values blow up: the largest is {value:.3g} times what it was shortly before; now {now}"
        )


def _ratios(check: Check, signals: Signals) -> dict[str, float]:
    """Each side's gradient norm over its usual one. Bad readings do not become usual at once: a median of many."""
    ratios = {side: times_usual(check.memory, side, norm) for side, norm in _norms(signals).items()}
    return {side: ratio for side, ratio in ratios.items() if ratio is not None}


def _norms(signals: Signals) -> dict[str, float]:
    names = {side: f"train/{side}/gradient_norm" for side in SIDES}
    return {s: signals[n] for s, n in names.items() if math.isfinite(signals.get(n, math.nan))}


def _of_sides(signals: Signals, what: str) -> dict[str, float]:
    return {s: signals[f"health/{s}/{what}"] for s in SIDES if f"health/{s}/{what}" in signals}
