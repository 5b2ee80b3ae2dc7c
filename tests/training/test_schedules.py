"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganforge.training.schedules import Constant, Cosine, Linear

share = st.floats(0.0, 0.999)


@given(total=st.floats(0.1, 1e5), start=share, final=st.floats(0, 2), progress=st.floats(0, 1))
def test_linear_and_cosine_follow_their_formulas(
    total: float, start: float, final: float, progress: float
) -> None:
    arguments = {"total_kimg": total, "start_kimg": start * total, "final_factor": final}
    kimg = start * total + progress * (total - start * total)
    line = (1 - progress) + final * progress
    cosine = final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
    assert Linear(**arguments)(kimg) == pytest.approx(line, abs=1e-6)
    assert Cosine(**arguments)(kimg) == pytest.approx(cosine, abs=1e-6)
    for schedule in (Linear(**arguments), Cosine(**arguments)):
        assert schedule(start * total) == pytest.approx(1)
        assert schedule(total) == pytest.approx(final)
        assert schedule(2 * total) == pytest.approx(final)
        assert schedule(0.0) == pytest.approx(1)


@given(kimg=st.floats(0, 1e9))
def test_constant(kimg: float) -> None:
    assert Constant()(kimg) == 1.0


@pytest.mark.parametrize("schedule", [Linear, Cosine])
@pytest.mark.parametrize("start_kimg", [-1.0, 10.0, 11.0])
def test_a_start_outside_the_run_is_refused(schedule: type[Linear], start_kimg: float) -> None:
    with pytest.raises(ValueError, match=rf"start_kimg={start_kimg}.*total_kimg=10"):
        schedule(total_kimg=10, start_kimg=start_kimg)
