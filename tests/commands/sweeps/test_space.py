"""Hydra's grammar of sweeps as a search space: what is drawn, and how it is said to the jobs."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ganforge.commands.errors import UserError
from ganforge.commands.sweeps.space import Space, essential, space_of


def parse(*words: str) -> Space:
    return space_of(OverridesParser.create().parse_overrides(list(words)))


@pytest.mark.parametrize(
    ("word", "distribution"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=interval(1,10)", FloatDistribution(1, 10)),
        ("a=int(interval(1,10))", IntDistribution(1, 10)),
        ("a=tag(log, interval(1e-5, 1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("a=tag(log, int(interval(8, 512)))", IntDistribution(8, 512, log=True)),
        ("a=int(tag(log, interval(8, 512)))", IntDistribution(8, 512, log=True)),
        ("a=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("a=range(9,1,-2)", IntDistribution(3, 9, step=2)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=range(0.1,0.9,0.2)", FloatDistribution(0.1, 0.7, step=0.2)),
        ("a=range(0.9,0.1,-0.2)", FloatDistribution(0.3, 0.9, step=0.2)),
        ("a=tag(log, range(1,9))", IntDistribution(1, 8, log=True)),
        ("a=choice(x,2,0.5,true)", CategoricalDistribution(["x", 2, 0.5, True])),
        ("a=x,y", CategoricalDistribution(["x", "y"])),
        ("a=[r1],[r1,r2],null", CategoricalDistribution(["[r1]", "[r1,r2]", None])),
        ("a='x y','z'", CategoricalDistribution(["x y", "z"])),
    ],
)
def test_grammar(word: str, distribution: Any) -> None:
    assert parse(word).distributions == {"a": distribution}


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("a=tag(lin, interval(0,1))", "the only tag here is log"),
        ("a=tag(log, choice(1,2))", "tag(log, ...) is for an interval or a range"),
        ("a=tag(log, range(0,1,0.1))", "is for whole numbers"),
        ("a=tag(log, interval(0,1))", "a=tag(log, interval(0,1)): "),
        ("a=interval(1,0)", "a=interval(1,0): "),
        ("a=range(3,3)", "empty"),
        ("a=1,nan", "nan and inf are no values"),
    ],
)
def test_what_cannot_be_searched_is_named(word: str, part: str) -> None:
    with pytest.raises(UserError) as error:
        parse(word)
    assert part in str(error.value)
    assert word in str(error.value)


def test_the_last_word_for_a_key_counts() -> None:
    space = parse("a=1,2", "b=3", "a=4", "b=5,6", "+c=7,8")
    assert list(space.dimensions) == ["b", "c"]
    assert space.words({"b": 5, "c": 8}) == ["a=4", "b=5", "+c=8"]


TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=8)
CHOICES = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), TEXTS)


@given(st.lists(CHOICES, min_size=2, max_size=4, unique_by=repr))
def test_a_choice_comes_back_from_the_command_line_as_it_was(values: list[Any]) -> None:
    """As value and as type, through Optuna's list and Hydra's grammar."""
    said = [quote(value) if isinstance(value, str) else str(value) for value in values]
    (dimension,) = parse(f"a=choice({','.join(said)})").dimensions.values()
    for value, choice in zip(values, dimension.values or [], strict=True):
        (back,) = OverridesParser.create().parse_overrides([dimension.word(choice)])
        assert (type(back.value()), back.value()) == (type(value), value)


def quote(text: str) -> str:
    slashes = len(text) - len(text.rstrip("\\"))
    inner = text.replace("\\'", "\\\\'").replace("'", "\\'") + "\\" * slashes
    return f"'{inner}'"


@given(st.floats(1e-12, 1e12), st.floats(1.001, 1e6))
def test_a_number_comes_back_from_the_command_line_to_the_last_bit(low: float, times: float) -> None:
    (dimension,) = parse(f"a=tag(log, interval({low}, {low * times}))").dimensions.values()
    (back,) = OverridesParser.create().parse_overrides([dimension.word(low)])
    assert back.value() == low


def test_grid_has_all_points_of_choices_and_ranges() -> None:
    space = parse("a=x,y", "b=range(0,0.3,0.1)", "c=range(1,4)")
    assert space.grid() == {"a": ["x", "y"], "b": [0.0, 0.1, 0.2], "c": [1, 2, 3]}
    with pytest.raises(UserError, match="b is an interval"):
        parse("a=x,y", "b=interval(0,1)").grid()


def test_where_a_run_is_made_does_not_make_it_another_one() -> None:
    free = [
        "trainer=cpu",
        "trainer.devices=2",
        "logger.mode=disabled",
        "data.root=x",
        "+callbacks.log.progress=false",
    ]
    counts = ["data.flip=true", "loss=hinge", "trainers=1"]
    assert essential([*free, *reversed(counts)]) == counts
