"""Searches that are killed at any moment, and drivers that share one: no trial is lost and none is repeated."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

N_TRIALS = 8


def read(folder: Path) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text())["trials"]
    return trials


def check(folder: Path, n_trials: int = N_TRIALS, uninterrupted: Path | None = None) -> None:
    """Each trial ended once, each of its evaluations was made once, and its points are its own."""
    trials = read(folder)
    assert [trial["number"] for trial in trials] == list(range(n_trials))
    assert {trial["state"] for trial in trials} == {"complete"}
    for trial in trials:
        assert trial["values"] == pytest.approx([(trial["params"]["x"] - 0.3) ** 2])
        assert len(trial["reports"]) == 9
    lines = Counter((folder / "played.log").read_text().splitlines())
    for number in range(n_trials):
        assert lines[f"{number} end"] >= 1
        # A job that a kill hit between its end and the driver's note says its last line again, and plays nothing.
        for evaluation in range(1, 11):
            assert lines[f"{number} evaluation {evaluation}"] == 1
    assert sum(lines[f"{number} end"] for number in range(n_trials)) <= n_trials + 5
    if uninterrupted is not None:
        assert [trial["params"] for trial in trials] == [trial["params"] for trial in read(uninterrupted)]


def finished(folder: Path) -> list[dict[str, Any]]:
    try:
        return [trial for trial in read(folder) if trial["state"] != "running"]
    except FileNotFoundError:
        return []


def test_a_search_that_is_killed_five_times_ends_as_one_that_is_not(
    start_driver: Callable[..., Any], search: Callable[..., Any], tmp_path: Path
) -> None:
    search("once", n_trials=N_TRIALS)
    draws = random.Random()
    before: list[dict[str, Any]] = []
    words = ["x=interval(0,1)", "+pause=0.02"]
    for kill in range(5):
        driver = start_driver(n_trials=N_TRIALS, words=words)
        # Not before it has begun: at least one trial is done between two kills.
        until = time.monotonic() + 180
        while len(finished(tmp_path / "sweep")) < min(kill + 1, N_TRIALS - 1) and driver.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 0.5))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        now = finished(tmp_path / "sweep")
        assert now[: len(before)] == before  # nothing of what was finished changed
        before = now
    last = start_driver(n_trials=N_TRIALS, words=words)
    _, err = last.communicate(timeout=240)
    assert last.returncode == 0, err
    assert read(tmp_path / "sweep")[: len(before)] == before
    check(tmp_path / "sweep", uninterrupted=tmp_path / "once")


def test_two_drivers_of_which_one_is_killed_play_exactly_what_was_asked(
    start_driver: Callable[..., Any], storage: str | None, tmp_path: Path
) -> None:
    """Killed in the middle and started again; the other one meanwhile goes on with what it had left."""
    settings = {
        "storage": storage,
        "study": f"two {tmp_path}",
        "n_trials": N_TRIALS,
        "n_jobs": 2,
        "words": ["x=interval(0,1)", "+pause=0.03"],
    }
    drivers = [start_driver(**settings) for _ in range(2)]
    until = time.monotonic() + 180
    while len(finished(tmp_path / "sweep")) < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    drivers[0].send_signal(signal.SIGKILL)
    drivers[0].wait()
    drivers.append(start_driver(**settings))
    for driver in drivers[1:]:
        _, err = driver.communicate(timeout=240)
        assert driver.returncode == 0, err
    check(tmp_path / "sweep")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_search_that_is_stopped_goes_on_at_once_elsewhere(
    number: signal.Signals, start_driver: Callable[..., Any], tmp_path: Path
) -> None:
    words = ["x=interval(0,1)", "+pause=0.05"]
    first = start_driver(n_trials=4, n_jobs=2, words=words)
    until = time.monotonic() + 180
    while not (tmp_path / "sweep" / "1" / "progress").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(number)
    _, err = first.communicate(timeout=240)
    assert first.returncode == 128 + number
    assert f"the search is stopped by {number.name}; the same command goes on with it" in err
    assert {trial["state"] for trial in read(tmp_path / "sweep")} == {"running"}
    second = start_driver(n_trials=4, n_jobs=2, words=words)
    _, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    check(tmp_path / "sweep", n_trials=4)
