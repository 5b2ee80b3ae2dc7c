"""The contract of a check: a number, how much of it is too much, and what to say and do when it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, Literal, get_args

Signals = Mapping[str, float]
"""What was measured since the reading before, by name; what could not be measured is not in it."""

Action = Literal["warn", "stop", "rollback"]


@dataclass(frozen=True)
class Finding:
    """An episode that begins: the value and the bound that it passed, and a sentence about it."""

    value: float
    threshold: float
    message: str


class Check(ABC):
    """Looks at each reading of a run, and says an episode once: when it begins.

    An episode begins after `patience` readings in a row beyond the threshold, and ends after as many that are clear of
    it by a tenth. Readings without the signals that a check needs do not count. Networks that have learnt nothing yet
    look ill: bad readings do not count before a clear one, or before `grace` readings. What a check remembers is plain
    data.

    Args:
        threshold: the bound.
        action: `warn` says it; `stop` ends the run with a checkpoint; `rollback` goes back to the last good one.
        patience: readings in a row.
        grace: readings in which it may start out bad.

    Attributes:
        worse: the side of the threshold that is bad.
        advice: what to try, in a line.
        of_time: goes by the clock on the wall, so that the same run may find it at one time and not at another.
        memory: what it remembers of earlier readings, plain data.

    Raises:
        ValueError: an action or a patience that it cannot have.
    """

    worse: ClassVar[Literal["higher", "lower"]] = "higher"
    advice: ClassVar[str]
    of_time: ClassVar[bool] = False
    _margin: ClassVar[float] = 0.1

    def __init__(self, threshold: float, action: Action = "warn", patience: int = 3, grace: int = 0) -> None:
        if action not in get_args(Action):
            raise ValueError(f"action={action}: it can be {', '.join(get_args(Action))}")
        if action == "rollback" and self.of_time:
            raise ValueError(
                "action=rollback: going back does not make a machine faster; it can be warn or stop"
            )
        if patience < 1:
            raise ValueError(f"patience={patience} must be at least 1")
        if grace < 0:
            raise ValueError(f"grace={grace} must be at least 0")
        if not math.isfinite(threshold):
            raise ValueError(f"threshold={threshold} must be finite")
        self.threshold = threshold
        self.action: Action = action
        self.patience = patience
        self.grace = grace
        self.memory: dict[str, Any] = {}
        self._early = 0  # readings of the grace; as many as there are once one was clear
        self._bad = 0
        self._clear = 0
        self._open = False

    @abstractmethod
    def measure(self, signals: Signals) -> float | None:
        """The number to hold against the threshold; None where the reading does not say."""

    @abstractmethod
    def say(self, value: float, signals: Signals) -> str:
        """What is wrong, in a sentence with the number in it."""

    @property
    def suspicious(self) -> bool:
        """Whether the last reading that counted was bad, or an episode goes on."""
        return self._open or self._bad > 0

    def look(self, signals: Signals) -> Finding | None:
        """Takes in a reading; an episode that begins with it."""
        value = self.measure(signals)
        if value is None or math.isnan(value):
            return None
        if self._beyond(value, self.threshold):
            self._early += 1
            self._bad, self._clear = self._bad + (self._early > self.grace), 0
        else:
            self._early = self.grace
            self._bad = 0
            self._clear = 0 if self._beyond(value, self._closing) else self._clear + 1
        if self._open and self._clear >= self.patience:
            self._open = False
        if self._open or self._bad < self.patience:
            return None
        self._open = True
        return Finding(value, self.threshold, self.say(value, signals))

    def state(self) -> dict[str, Any]:
        return {
            "early": self._early,
            "bad": self._bad,
            "clear": self._clear,
            "open": self._open,
            "memory": {name: _copied(value) for name, value in self.memory.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._early, self._open = state["early"], state["open"]
        self._bad, self._clear = state["bad"], state["clear"]
        self.memory = {name: _copied(value) for name, value in state["memory"].items()}

    @property
    def _closing(self) -> float:
        margin = self._margin * abs(self.threshold)
        return self.threshold - margin if self.worse == "higher" else self.threshold + margin

    def _beyond(self, value: float, bound: float) -> bool:
        return value > bound if self.worse == "higher" else value < bound


def times_usual(
    memory: dict[str, Any], name: str, value: float, few: int = 5, many: int = 25
) -> float | None:
    """The value as a multiple of the median of up to `many` readings before; None after fewer than `few` of them."""
    before: list[float] = memory.setdefault(name, [])
    usual = median(before) if len(before) >= few else None
    memory[name] = [*before, value][-many:]
    return value / usual if usual else None


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value
