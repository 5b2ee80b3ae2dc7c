"""A study shared by drivers: each trial is one driver's, is never lost, and there are as many as were asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from ganforge.commands.errors import UserError
from ganforge.commands.sweeps import alive
from ganforge.commands.sweeps import study as studies
from ganforge.commands.sweeps.study import SharedStudy, Taken, open_storage

FACTS = {"settings": ["loss=hinge"], "seeds": 1}
SPACE = {"x": FloatDistribution(0, 1)}


def open_study(
    folder: Path, storage: str | None = None, *, n_trials: int = 3, name: str = "test", **more: Any
) -> SharedStudy:
    settings: dict[str, Any] = {
        "directions": ["minimize"],
        "distributions": SPACE,
        "sampler": lambda number: optuna.samplers.RandomSampler(seed=number),
        "pruner": optuna.pruners.NopPruner(),
        "facts": FACTS,
    }
    return SharedStudy(open_storage(storage, folder), name, n_trials=n_trials, **settings | more)


def take_all(study: SharedStudy) -> list[Taken]:
    taken = []
    while (trial := study.take()) is not None:
        taken.append(trial)
    return taken


def test_each_trial_is_taken_once_by_drivers_that_start_at_once(storage: str | None, tmp_path: Path) -> None:
    """Also its tables are made once: none of them fails."""
    name, drivers, numbers, errors = f"at once {tmp_path}", 3, [], []
    ready = threading.Barrier(drivers)

    def drive() -> None:
        try:
            ready.wait(20)
            study = open_study(tmp_path, storage, n_trials=8, name=name)
            while (taken := study.take()) is not None:
                numbers.append(taken.number)
                study.tell(taken, TrialState.COMPLETE, [taken.point["x"]])
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=drive) for _ in range(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(numbers) == list(range(8))
    study = open_study(tmp_path, storage, n_trials=8, name=name)
    assert study.is_finished
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 8
    assert open_study(tmp_path, storage, n_trials=9, name=name).take() is not None  # one more is one more


def test_points_follow_from_the_number_and_the_trials_before(tmp_path: Path) -> None:
    def points(folder: str, starts: int) -> list[float]:
        found = []
        for _ in range(starts):
            study = open_study(
                tmp_path / folder,
                n_trials=8,
                sampler=lambda n: optuna.samplers.TPESampler(seed=n, n_startup_trials=2),
            )
            for _ in range(8 // starts):
                taken = study.take()
                assert taken is not None
                found.append(taken.point["x"])
                study.tell(taken, TrialState.COMPLETE, [(taken.point["x"] - 0.3) ** 2])
        return found

    once = points("once", 1)
    assert once == points("twice", 2) == points("four", 4)
    assert len(set(once)) == 8


DIES = """
import sys, os, signal, json
sys.path.insert(0, {here!r})
from test_study import open_study
from pathlib import Path
study = open_study(Path({folder!r}), {storage!r}, name={name!r})
taken = study.take()
study.note(taken, "scores", {{"0": {{"fid": 2.5}}}})
print(taken.number, taken.point["x"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_trial_of_a_driver_that_was_killed_is_taken_up_as_it_was(
    storage: str | None, tmp_path: Path, own_environment: dict[str, str]
) -> None:
    name = f"killed {tmp_path}"
    text = DIES.format(here=str(Path(__file__).parent), folder=str(tmp_path), storage=storage, name=name)
    done = subprocess.run([sys.executable, "-c", text], env=own_environment, capture_output=True, text=True)
    number, x = done.stdout.split()
    study = open_study(tmp_path, storage, name=name)
    taken = study.take()
    assert taken is not None
    assert (taken.number, taken.point) == (int(number), {"x": float(x)})
    assert taken.facts["scores"] == {"0": {"fid": 2.5}}
    study.tell(taken, TrialState.COMPLETE, [1.0])
    assert [taken.number for taken in take_all(study)] == [1, 2]


def test_a_trial_of_a_living_driver_is_not_taken(tmp_path: Path) -> None:
    first, second = open_study(tmp_path), open_study(tmp_path)
    assert [taken.number for taken in take_all(first)] == [0, 1, 2]
    assert take_all(second) == []
    assert not second.is_finished


def test_a_driver_elsewhere_is_dead_after_a_time_without_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of who looks; a sign of life begins the time anew."""
    monkeypatch.setattr(alive, "machine", lambda: "another machine")
    elsewhere = open_study(tmp_path, dead_after_seconds=0.4)
    taken = elsewhere.take()
    assert taken is not None
    monkeypatch.undo()
    here = open_study(tmp_path, n_trials=1, dead_after_seconds=0.4)
    assert here.take() is None
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        elsewhere.beat()
        assert here.take() is None
        time.sleep(0.05)
    time.sleep(0.5)
    back = here.take()
    assert back is not None
    assert (back.number, back.point) == (taken.number, taken.point)
    assert here.is_mine(back)
    assert not elsewhere.is_mine(taken)
    elsewhere.tell(taken, TrialState.COMPLETE, [1.0])  # it was not dead, but late: nobody listens
    assert not here.is_finished
    here.tell(back, TrialState.COMPLETE, [2.0])
    assert [trial.values for trial in here.trials()] == [[2.0]]


def test_a_trial_that_died_before_it_had_a_driver_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(tmp_path, n_trials=1)
    (waiting,) = study._study.get_trials(states=(TrialState.WAITING,))
    study._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
    monkeypatch.setattr(studies, "_NAMELESS_SECONDS", 0.2)
    assert study.take() is None
    time.sleep(0.3)
    taken = study.take()
    assert taken is not None
    assert 0 <= taken.point["x"] <= 1


def test_of_two_that_reach_for_a_left_trial_one_has_it(tmp_path: Path) -> None:
    first = open_study(tmp_path, n_trials=1)
    taken = first.take()
    assert taken is not None
    first.release(taken)
    others = [open_study(tmp_path, n_trials=1) for _ in range(2)]
    found: list[Taken | None] = [None, None]

    def reach(at: int) -> None:
        found[at] = others[at].take()

    threads = [threading.Thread(target=reach, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine = [each is not None and other.is_mine(each) for each, other in zip(found, others, strict=True)]
    assert sum(mine) == 1


def test_a_job_that_outlives_its_driver_is_waited_for(tmp_path: Path) -> None:
    first = open_study(tmp_path, n_trials=1)
    taken = first.take()
    assert taken is not None
    first.note(taken, "job", [alive.machine(), alive.process(os.getpid())])
    first.release(taken)
    second = open_study(tmp_path, n_trials=1)
    assert second.take() is None
    first._storage.set_trial_user_attr(taken.trial._trial_id, "job", [alive.machine(), "1:1"])
    assert second.take() is not None


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (
            {"facts": {**FACTS, "settings": ["loss=wasserstein"]}},
            "loss=hinge there, and loss=wasserstein here",
        ),
        ({"facts": {**FACTS, "seeds": 3}}, "seeds: 1 there, and 3 here"),
        ({"directions": ["maximize"]}, "to minimize, and this is to maximize"),
    ],
)
def test_a_study_that_was_begun_otherwise_is_not_gone_on_with(
    more: dict[str, Any], part: str, tmp_path: Path
) -> None:
    open_study(tmp_path)
    with pytest.raises(UserError) as error:
        open_study(tmp_path, **more)
    assert part in str(error.value)
    assert "sweep.study=" in str(error.value)


def test_a_line_that_a_crash_cut_short_is_taken_off(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    taken = study.take()
    assert taken is not None
    study.tell(taken, TrialState.COMPLETE, [1.0])
    with (tmp_path / "study.journal").open("a") as file:
        file.write('{"op_code": 5, "worker_')
    again = open_study(tmp_path)
    assert [trial.values for trial in again.trials()] == [[1.0]]
    assert len(take_all(again)) == 2


@pytest.mark.parametrize(
    ("storage", "parts"),
    [
        ("mysterydb://u:hidden-word@h/d", ["mysterydb://u:***@h/d"]),
        ("postgresql://u:hidden-word@127.0.0.1:1/d", ["postgresql://u:***@127.0.0.1:1/d", "failed"]),
        ("postgresql://u:hidden-word@127.0.0.1:port/d", ["u:***@127.0.0.1:port/d"]),
        ("/proc/study", ["/proc/study cannot be written"]),
    ],
)
def test_a_storage_that_cannot_be_had_is_named_without_its_password(
    storage: str, parts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        open_storage(storage, tmp_path)
    for part in parts:
        assert part in str(error.value)
    assert "hidden-word" not in str(error.value)
