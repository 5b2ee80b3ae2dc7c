"""Numbers that change in time: pure functions of the images seen, so a resumed run needs no state of theirs.

A setting whose type is `Value` is a number, or a schedule in its place. Who uses it asks `value_at` at the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """A number after `kimg` thousands of images; from some time on, for ever the same one."""

    def __call__(self, kimg: float) -> float: ...


Value = float | Schedule
END_KIMG = 1e12
"""A time after any schedule's end."""


def value_at(value: Value, kimg: float) -> float:
    return value(kimg) if callable(value) else value


def mapped(value: Value, function: Callable[[float], float]) -> Value:
    """The function of the value, at any time.

    >>> mapped(3.0, lambda x: x / 2)
    1.5
    """
    if not callable(value):
        return function(value)
    schedule: Schedule = value

    def later(kimg: float) -> float:
        return function(schedule(kimg))

    return later


def ends(value: Value) -> tuple[float, float]:
    """The value at the start and at the end: what lies between them holds the bounds that both hold."""
    return value_at(value, 0.0), value_at(value, END_KIMG)


class Constant:
    """The same number for ever."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, kimg: float) -> float:
        return self.value


class _Change:
    """`initial` until `start_kimg`, `final` from `end_kimg` on.

    Raises:
        ValueError: the times are not in order.
    """

    def __init__(
        self, end_kimg: float, initial: float = 1.0, final: float = 0.0, start_kimg: float = 0.0
    ) -> None:
        if not 0 <= start_kimg < end_kimg < math.inf:
            raise ValueError(f"a schedule's start_kimg={start_kimg} must lie in [0, end_kimg={end_kimg})")
        self.start_kimg, self.end_kimg = start_kimg, end_kimg
        self.initial, self.final = initial, final

    def __repr__(self) -> str:
        times = f"{self.start_kimg:g} to {self.end_kimg:g} kimg"
        return f"{type(self).__name__}({self.initial:g} to {self.final:g} from {times})"

    def _progress(self, kimg: float) -> float:
        return min(max((kimg - self.start_kimg) / (self.end_kimg - self.start_kimg), 0.0), 1.0)


class Linear(_Change):
    """In a straight line from `initial` at `start_kimg` to `final` at `end_kimg`."""

    def __call__(self, kimg: float) -> float:
        return self.initial + (self.final - self.initial) * self._progress(kimg)


class Cosine(_Change):
    """Half a cosine from `initial` at `start_kimg` to `final` at `end_kimg` (Loshchilov & Hutter 2017)."""

    def __call__(self, kimg: float) -> float:
        share = 0.5 * (1.0 + math.cos(math.pi * self._progress(kimg)))
        return self.final + (self.initial - self.final) * share


class Exponential(_Change):
    """By the same factor each time, from `initial` at `start_kimg` to `final` at `end_kimg`; both above 0."""

    def __init__(
        self, end_kimg: float, initial: float = 1.0, final: float = 0.5, start_kimg: float = 0.0
    ) -> None:
        super().__init__(end_kimg, initial, final, start_kimg)
        if not (initial > 0 and final > 0):
            raise ValueError(
                f"initial={initial} and final={final} of an exponential schedule must be above 0"
            )

    def __call__(self, kimg: float) -> float:
        value: float = self.initial * (self.final / self.initial) ** self._progress(kimg)
        return value
