"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganforge.schedules import Constant, Cosine, Exponential, Linear, Schedule, ends, mapped, value_at

share, number = st.floats(0.0, 0.999), st.floats(0.01, 2)
KINDS = [Linear, Cosine, Exponential]


@given(end=st.floats(0.1, 1e5), start=share, initial=number, final=number, progress=st.floats(0, 1))
def test_schedules_follow_their_formulas(
    end: float, start: float, initial: float, final: float, progress: float
) -> None:
    arguments = {"end_kimg": end, "start_kimg": start * end, "initial": initial, "final": final}
    kimg = start * end + progress * (end - start * end)
    line = initial * (1 - progress) + final * progress
    cosine = final + (initial - final) * (1 + math.cos(math.pi * progress)) / 2
    exponential = math.exp((1 - progress) * math.log(initial) + progress * math.log(final))
    for kind, expected in zip(KINDS, (line, cosine, exponential), strict=True):
        schedule = kind(**arguments)
        assert schedule(kimg) == pytest.approx(expected, abs=1e-5)
        for time, value in ((0.0, initial), (start * end, initial), (end, final), (2 * end, final)):
            assert schedule(time) == pytest.approx(value)
        assert ends(schedule) == pytest.approx((initial, final))


@given(kimg=st.floats(0, 1e9), value=number)
def test_numbers_and_constants_stay(kimg: float, value: float) -> None:
    assert Constant()(kimg) == 1.0
    assert value_at(value, kimg) == value_at(Constant(value), kimg) == value
    assert ends(value) == (value, value)


@given(kimg=st.floats(0, 3))
def test_a_function_of_a_schedule_is_one_of_its_values(kimg: float) -> None:
    schedule = Cosine(end_kimg=2)
    root = mapped(schedule, math.sqrt)
    assert isinstance(root, Schedule)
    assert value_at(root, kimg) == math.sqrt(schedule(kimg))
    assert mapped(9.0, math.sqrt) == 3.0


@pytest.mark.parametrize("schedule", KINDS)
@pytest.mark.parametrize("start_kimg", [-1.0, 10.0, 11.0])
def test_a_start_outside_the_time_is_refused(schedule: type[Linear], start_kimg: float) -> None:
    with pytest.raises(ValueError, match=rf"start_kimg={start_kimg}.*end_kimg=10"):
        schedule(end_kimg=10, start_kimg=start_kimg)


def test_what_falls_by_a_factor_does_not_reach_0() -> None:
    with pytest.raises(ValueError, match="final=0"):
        Exponential(end_kimg=10, final=0)
