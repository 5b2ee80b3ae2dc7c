"""A search space in the grammar of Hydra's sweeps, in Optuna's terms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from ganforge.commands.errors import UserError

# Words that are no number, no truth value and nothing.
_BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE)

Value = str | int | float | bool | None
Point = Mapping[str, Value]


@dataclass(frozen=True)
class Dimension:
    """A setting with more than one value.

    Attributes:
        key: as it is typed, with + or ++ in front where there is one.
        distribution: Optuna's.
        texts: of a choice, each value as Hydra takes it; empty otherwise.
        is_group: whether it chooses a part.
    """

    key: str
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()
    is_group: bool = False

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def word(self, value: Value) -> str:
        """`KEY=VALUE` for the command line."""
        if isinstance(self.distribution, CategoricalDistribution):
            same = [type(each) is type(value) and each == value for each in self.distribution.choices]
            return f"{self.key}={self.texts[same.index(True)]}"
        return f"{self.key}={value}"

    @property
    def values(self) -> list[Value] | None:
        """All there are, in order; None for an interval."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return list(distribution.choices)
        if isinstance(distribution, IntDistribution) and not distribution.log:
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            return [float(low + at * step) for at in range(count)]
        return None


@dataclass(frozen=True)
class Space:
    """What a command line asks for.

    Attributes:
        dimensions: by name.
        fixed: the words that all trials have in common.
    """

    dimensions: Mapping[str, Dimension]
    fixed: tuple[str, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {name: each.distribution for name, each in self.dimensions.items()}

    def words(self, point: Point) -> list[str]:
        """The settings of a point, each as a word of the command line, behind those that all have."""
        return [*self.fixed, *(each.word(point[name]) for name, each in self.dimensions.items())]

    def first(self) -> dict[str, Value]:
        """A point: the first value of each choice, the lowest of each number."""
        return {name: _first(each.distribution) for name, each in self.dimensions.items()}

    def corners(self) -> Iterator[dict[str, Value]]:
        """Points between which every part that is chosen from comes once, and every end of a number."""
        first = self.first()
        yield first
        for name, each in self.dimensions.items():
            if each.is_group:
                for value in (each.values or [])[1:]:
                    yield {**first, name: value}

    def grid(self) -> dict[str, list[Value]]:
        """
        Raises:
            UserError: an interval has no points to count.
        """
        points = {name: each.values for name, each in self.dimensions.items()}
        for name, values in points.items():
            if values is None:
                raise UserError(
                    f"sweep.sampler=grid: {name} is an interval; {name}=range(...) or a list of values has a grid"
                )
        return {name: list(values or []) for name, values in points.items()}

    def facts(self) -> dict[str, Any]:
        """As plain data, to tell whether two are the same."""
        return {
            "settings": essential(self.fixed),
            "space": {
                name: [distribution_to_json(each.distribution), *each.texts]
                for name, each in sorted(self.dimensions.items())
            },
        }


# What another machine, or a later start, may do otherwise.
_FREE = ("trainer", "logger", "tags", "workers", "data.root", "callbacks.log", "callbacks.samples")


def essential(words: Sequence[str]) -> list[str]:
    """Those of a run's settings that its result depends on, sorted."""
    keys = {word: word.lstrip("+~").partition("=")[0] for word in words}
    return sorted(word for word in words if not any(f"{keys[word]}.".startswith(f"{key}.") for key in _FREE))


def space_of(overrides: Sequence[Override], groups: Sequence[str] = ()) -> Space:
    """
    Args:
        overrides: as Hydra's parser gives them.
        groups: names of groups of parts.

    Raises:
        UserError: values that cannot be searched.
    """
    fixed: dict[str, str] = {}
    dimensions: dict[str, Dimension] = {}
    for override in overrides:
        key = override.get_key_element()
        name = key.lstrip("+")
        fixed.pop(name, None), dimensions.pop(name, None)  # the later one counts
        if override.is_sweep_override():
            dimensions[name] = _dimension(key, override, override.key_or_group in groups)
        else:
            fixed[name] = str(override.input_line)
    return Space(dimensions, tuple(fixed.values()))


def _dimension(key: str, override: Override, is_group: bool) -> Dimension:
    sweep = override.value()
    word = override.input_line
    tags: set[str] = getattr(sweep, "tags", set())
    if tags - {"log"}:
        raise UserError(f"{word}: the only tag here is log, as in {key}=tag(log, interval(1e-5, 1e-2))")
    log = "log" in tags
    try:
        if isinstance(sweep, IntervalSweep):
            return Dimension(key, _interval(sweep, log))
        if isinstance(sweep, RangeSweep):
            return Dimension(key, _range(sweep, log))
        if log:
            raise ValueError("tag(log, ...) is for an interval or a range")
        if isinstance(sweep, ChoiceSweep):  # whose order, if it is shuffled, means nothing to a search
            values: list[Any] = list(sweep.list)
        else:
            values = list(override.sweep_iterator())
        texts = tuple(map(_text, values))
    except ValueError as error:
        raise UserError(f"{word}: {error}") from error
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise UserError(f"{word}: nan and inf are no values to choose from")
    plain = [_plain(value, text) for value, text in zip(values, texts, strict=True)]
    return Dimension(key, CategoricalDistribution(plain), texts, is_group)


def _interval(sweep: IntervalSweep, log: bool) -> BaseDistribution:
    low, high = sweep.start, sweep.end
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(
        high, int
    ):  # Hydra makes floats of them, unless int(...) is around
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _range(sweep: RangeSweep, log: bool) -> BaseDistribution:
    """As in Hydra the end is not among the values."""
    values = sorted(sweep.range())
    if not values:
        raise ValueError("this range is empty")
    if all(isinstance(value, int) for value in values):
        step = abs(int(sweep.step))
        if log and step != 1:
            raise ValueError("tag(log, range(...)) has steps of 1; tag(log, int(interval(...))) is the same")
        return IntDistribution(int(values[0]), int(values[-1]), log=log, step=1 if log else step)
    if log:
        raise ValueError("tag(log, range(...)) is for whole numbers; tag(log, interval(...)) has any")
    start, each = Decimal(str(sweep.start)), Decimal(str(sweep.step))  # as typed, and not as stored
    ends = sorted((start, start + (len(values) - 1) * each))
    return FloatDistribution(float(ends[0]), float(ends[1]), step=abs(float(each)))


def _text(value: Any) -> str:
    """A choice as Hydra takes it; a text that it would read otherwise is quoted."""
    if isinstance(value, QuotedString):
        value = value.text
    if not isinstance(value, str):
        return Override._get_value_element_as_str(value)
    return value if _BARE.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()


def _plain(value: Any, text: str) -> Value:
    """A choice as Optuna can keep it: a list or dictionary by its text."""
    value = Override._convert_value(value)
    return value if value is None or isinstance(value, str | int | float | bool) else text


def _first(distribution: BaseDistribution) -> Value:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low
