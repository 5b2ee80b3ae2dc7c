"""A loader that makes training wait, or that delivers nothing any more, and a run that became slow."""

from __future__ import annotations

from ganforge.training.health.check import Action, Check, Signals, times_usual


class SlowLoader(Check):
    """Share of the rounds' time that is spent waiting for data."""

    advice = "more workers, ganforge prepare and data=streaming, images of the right size, or a faster disk"
    of_time = True

    def __init__(self, threshold: float = 0.5, action: Action = "warn", patience: int = 3) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("health/waiting")

    def say(self, value: float, signals: Signals) -> str:
        return f"the loader is slow: {value:.0%} of the time goes by waiting for data"


class DeadLoader(Check):
    """The longest wait for a batch, in seconds; a wait that goes on is told while it does."""

    advice = "look at the disk or the network that the data lies on; workers=0 shows an error of the data set itself"
    of_time = True

    def __init__(self, threshold: float = 60.0, action: Action = "warn", patience: int = 1) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        return signals.get("health/longest_wait_seconds")

    def say(self, value: float, signals: Signals) -> str:
        return f"the loader delivers nothing: a batch is, or was, waited for for {value:.3g} s"


class Throughput(Check):
    """Images a second, as a multiple of the median of the readings before."""

    worse = "lower"
    advice = "look for other processes on the machine, a device that is too hot, or a disk that became slow"
    of_time = True

    def __init__(self, threshold: float = 0.4, action: Action = "warn", patience: int = 4) -> None:
        super().__init__(threshold, action, patience)

    def measure(self, signals: Signals) -> float | None:
        speed = signals.get("health/images_per_second")
        return None if speed is None else times_usual(self.memory, "speeds", speed)

    def say(self, value: float, signals: Signals) -> str:
        now = signals["health/images_per_second"]
        return f"training became slow: {now:,.0f} images a second, {value:.0%} of the usual"
