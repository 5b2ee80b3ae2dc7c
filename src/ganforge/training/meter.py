"""Means of logged values over an interval, kept on the device: one transfer an interval, none a round."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ganforge.training.gradients import average_


class NonFiniteLossError(RuntimeError):
    """A term of the game, or a player's weights, became NaN or infinite; training from here on would be lost work."""


class Meter:
    """Collects detached tensors by name, for as many readers as there are; `means()` is the first of them.

    What is collected is reduced for many rounds at once: a round pays for no more than a list's `append`.
    """

    fold_at = 256  # bounds the memory of a long interval
    recent_at_most = 4096

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._times: dict[str, list[int]] = defaultdict(list)  # each value's place among the calls of `add`
        self._time = 0
        self._went_bad: dict[str, Tensor] = {}
        self._recent: dict[str, Tensor] = {}
        self._intervals: list[Interval] = []
        self._own = self.interval()

    def interval(self) -> Interval:
        """Another reader, whose interval starts here."""
        self._intervals.append(Interval(self))
        return self._intervals[-1]

    def add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        self._time += 1
        for name, value in values.items():
            pending = self._values[prefix + name]
            pending.append(value.detach())
            self._times[prefix + name].append(self._time)
            if len(pending) >= self.fold_at:
                self._settle(prefix + name)

    def means(self) -> dict[str, float]:
        """Means by name since the last call, as those of an `Interval`."""
        return self._own.means()

    def fold(self) -> None:
        """Hands what was collected to every reader."""
        for name in list(self._values):
            self._fold(name)

    def settle(self) -> None:
        """Likewise, where no reader asks whether all is finite."""
        for name in list(self._values):
            self._settle(name)

    def recent(self) -> dict[str, Tensor]:
        """The last elements, float (n,), of this rank's vectors since the last call, by name."""
        recent, self._recent = self._recent, {}
        return recent

    def clear(self) -> None:
        """Forgets everything: the run goes back to before it."""
        self._values.clear()
        self._recent.clear()
        self._times.clear()
        self._went_bad.clear()
        for interval in self._intervals:
            interval.sums.clear()

    def pending(self) -> dict[str, tuple[list[Tensor], list[int]]]:
        """Values that no reader was handed yet, and when each came."""
        return {name: (list(values), list(self._times[name])) for name, values in self._values.items()}

    def first_of(self, bad: Iterable[str], pending: Mapping[str, tuple[list[Tensor], list[int]]]) -> str:
        """Which of these names had a value that is not finite first."""

        def when(name: str) -> float:
            times = [self._went_bad[name]] if name in self._went_bad else []
            times += [_first_bad(*pending[name])] if name in pending else []
            return min((float(time) for time in times), default=math.inf)

        return min(bad, key=when)

    def _settle(self, name: str) -> None:
        bad = _first_bad(self._values[name], self._times[name])
        self._went_bad[name] = torch.minimum(self._went_bad.get(name, bad), bad)
        self._fold(name)

    def _fold(self, name: str) -> None:
        pending = self._values.pop(name)
        self._times.pop(name)
        values = torch.stack(pending) if pending[0].ndim == 0 else torch.cat([v.reshape(-1) for v in pending])
        if pending[0].ndim and values.is_floating_point():
            kept = self._recent.get(name, values[:0])
            self._recent[name] = torch.cat([kept, values])[-self.recent_at_most :]
        total = values.sum(dtype=torch.float64)
        for interval in self._intervals:
            before, count = interval.sums.get(name, (0.0, 0))
            interval.sums[name] = (total + before, count + values.numel())


def _first_bad(values: list[Tensor], times: list[int]) -> Tensor:
    """The time of the first value that is not finite everywhere; infinity where all are."""
    finite = torch.stack([torch.isfinite(value).all() for value in values])
    when = torch.tensor(times, dtype=torch.float64).to(finite.device)
    return torch.where(finite, torch.inf, when).min()


class Interval:
    """What one reader of a meter has not asked for yet.

    Attributes:
        sums: by name, of all elements so far, and how many they are.
    """

    def __init__(self, meter: Meter) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self._meter = meter

    def settle(self) -> None:
        """Has `sums` hold everything up to now."""
        self._meter.settle()

    def means(self) -> dict[str, float]:
        """Means by name since the last call, over all ranks, each of which has to ask.

        Raises:
            NonFiniteLossError: naming the value that was NaN or infinite first at any time in the interval.
        """
        pending = self._meter.pending()
        self._meter.fold()
        if not self.sums:
            return {}
        names = list(self.sums)
        means = torch.stack([total / count for total, count in self.sums.values()])
        self.sums.clear()
        average_([means])  # first: what one rank finds not finite has to end all of them
        result = dict(zip(names, means.tolist(), strict=True))
        bad = {name: mean for name, mean in result.items() if not math.isfinite(mean)}
        if bad:
            name = self._meter.first_of(bad, pending)
            raise NonFiniteLossError(f"{name} became {bad[name]}")
        return result
