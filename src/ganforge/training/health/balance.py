"""A discriminator that is too strong, too weak, or that knows its images by heart."""

from __future__ import annotations

from ganforge.training.health.check import Action, Check, Signals, times_usual

_REAL, _FAKE = "train/discriminator/accuracy_real", "train/discriminator/accuracy_fake"
_GENERATORS_GRADIENT = "train/generator/gradient_norm"


class DiscriminatorTooStrong(Check):
    """The smaller of the shares of real and of fake images that it tells: both at 1 leave nothing to learn from.

    Of losses for which the sign of a logit is a verdict.
    """

    advice = "penalty=[r1] or a larger gamma, a lower optimizer.discriminator.lr, augment=diffaugment for few images"

    def __init__(
        self, threshold: float = 0.995, action: Action = "warn", patience: int = 5, grace: int = 15
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        gradient = signals.get(_GENERATORS_GRADIENT)
        if gradient is not None:
            self.memory["times_usual"] = times_usual(self.memory, "gradients", gradient)
        return min(signals[_REAL], signals[_FAKE]) if {_REAL, _FAKE} <= signals.keys() else None

    def say(self, value: float, signals: Signals) -> str:
        ratio = self.memory.get("times_usual")
        told = "" if ratio is None else f"; the generator's gradient is {ratio:.2g} times its usual"
        return (
            f"the discriminator is too strong: it tells {signals[_REAL]:.1%} of real and {signals[_FAKE]:.1%} of fake "
            f"images{told}"
        )


class DiscriminatorTooWeak(Check):
    """The mean of both shares: at 1/2 it guesses, and the generator learns nothing from it."""

    worse = "lower"
    advice = "discriminator_steps=2, a higher optimizer.discriminator.lr, a wider one, weaker penalties or augmentation"

    def __init__(
        self, threshold: float = 0.52, action: Action = "warn", patience: int = 5, grace: int = 15
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        return (signals[_REAL] + signals[_FAKE]) / 2 if {_REAL, _FAKE} <= signals.keys() else None

    def say(self, value: float, signals: Signals) -> str:
        return (
            f"the discriminator is too weak: it is right in {value:.1%} of its verdicts, and 50% is guessing"
        )


class Overfitting(Check):
    """r_v of runs with `held_out` images: 0 where it takes held-out images for real, 1 where it takes them for fakes.

    Karras et al. 2020, arXiv 2006.06676, equation 1.
    """

    advice = "augment=ada or diffaugment, more images, penalty=[r1,lecam], or an end at the best score"

    def __init__(self, threshold: float = 0.8, action: Action = "warn", patience: int = 3) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("overfitting/r_v")

    def say(self, value: float, signals: Signals) -> str:
        return (
            f"the discriminator overfits: it rates held-out images {value:.0%} of the way from those it is "
            "trained on to fakes"
        )


class SureOfReal(Check):
    """r_t = E[sign(D(real))] of what it is shown, the figure that ADA and APA steer to 0.6: towards 1 it overfits."""

    advice = "augment=ada, or a faster one (augment.speed_kimg); more images"

    def __init__(
        self, threshold: float = 0.98, action: Action = "warn", patience: int = 6, grace: int = 15
    ) -> None:
        super().__init__(threshold, action, patience, grace)

    def measure(self, signals: Signals) -> float | None:
        return 2 * signals[_REAL] - 1 if _REAL in signals else None

    def say(self, value: float, signals: Signals) -> str:
        return f"the discriminator overfits: r_t, the mean sign of real logits, is {value:.2f} (0.6 is usual)"
