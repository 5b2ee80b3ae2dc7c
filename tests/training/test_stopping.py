"""A run ends at its target, or when patience is lost, and for no other reason."""

from __future__ import annotations

import math

import pytest

from ganforge.training.stopping import Stopping, is_better

FIGURES = {"fid": "lower", "recall": "higher", "fid_real_halves": "neither"}


def stopping(**arguments: object) -> Stopping:
    defaults = {"targets": {}, "metric": None, "patience_kimg": None, "figures": FIGURES, "monitor": "fid"}
    return Stopping(**{**defaults, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("targets", "scores", "ends"),
    [
        ({"fid": 20}, {"fid": 20.1}, False),
        ({"fid": 20}, {"fid": 20.0}, True),
        ({"fid": 20}, {"fid": 3}, True),
        ({"recall": 0.5}, {"recall": 0.4, "fid": 0}, False),
        ({"recall": 0.5}, {"recall": 0.6}, True),
        ({"recall": 0.5, "fid": 1}, {"recall": 0.1, "fid": 0.9}, True),
        ({"fid": 20}, {"fid": math.nan}, False),
        ({"fid": 20}, {}, False),
    ],
)
def test_a_target_ends_the_run_from_its_better_side(targets: dict, scores: dict, ends: bool) -> None:
    reason = stopping(targets=targets).reason(scores, 1.0)
    assert (reason is not None) == ends
    assert not ends or "reached its target" in str(reason)


def test_patience_counts_kimg_since_the_best() -> None:
    patient = stopping(patience_kimg=10)
    curve = [(0, 9), (4, 7), (8, 7), (12, 8), (13.9, 7.5)]
    assert all(patient.reason({"fid": fid}, kimg) is None for kimg, fid in curve)
    reason = patient.reason({"fid": 7.0}, 14)
    assert reason is not None
    assert "7, its value at 4 kimg" in reason


def test_patience_survives_a_resume_and_missing_figures() -> None:
    first = stopping(patience_kimg=10, metric="recall")
    assert first.reason({"recall": 0.5}, 1) is None
    second = stopping(patience_kimg=10, metric="recall")
    second.load_state(first.state())
    assert second.reason({"recall": 0.4}, 10.9) is None
    assert second.reason({}, 11) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": {"fdi": 3}}, "stop.fdi: there is no such figure to stop by; it can be fid, recall"),
        ({"targets": {"fid_real_halves": 3}}, "stop.fid_real_halves"),
        ({"metric": "loss", "patience_kimg": 3}, "stop.loss"),
        ({"patience_kimg": 0}, "patience_kimg=0 must be greater"),
        ({"targets": {"fid": 3}, "figures": {}}, "these metrics give none"),
    ],
)
def test_mistakes_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        stopping(**arguments)


def test_nothing_is_better_than_nan_nor_nan_than_anything() -> None:
    for better in ("lower", "higher", "neither"):
        assert not is_better(better, math.nan, 1.0)
        assert not is_better(better, 1.0, math.nan)
        assert not is_better(better, 1.0, 1.0)
