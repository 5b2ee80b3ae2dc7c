"""Jobs as processes: what is heard of them, how they are ended, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ganforge.commands.sweeps.gpus import Gpus
from ganforge.commands.sweeps.jobs import Ended, Evaluated, Jobs

pytestmark = pytest.mark.usefixtures("nothing_is_left")

JOIN = "from ganforge.commands.job_of_a_sweep import *; join_the_sweep(); import os, sys, signal, time\n"


@pytest.fixture(autouse=True)
def _finds_the_package(own_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", own_environment["PYTHONPATH"])


def programs(at_once: int = 1, gpus: Gpus | None = None) -> Jobs:
    """Jobs whose words are Python programs."""
    return Jobs(at_once, gpus, program=[sys.executable, "-c"])


def all_events(jobs: Jobs) -> list[Evaluated | Ended]:
    events = []
    while (event := jobs.next()) is not None:
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tell_the_sweep(returned={'fid': 2.5})", Ended("a", 0, {"fid": 2.5})),
        ("tell_the_sweep(error='no such loss'); sys.exit(2)", Ended("a", 2, None, "no such loss")),
        ("sys.exit(7)", Ended("a", 7, None, "ended with exit code 7")),
        ("os.kill(os.getpid(), signal.SIGKILL)", Ended("a", -9, None, "was killed by SIGKILL")),
        (
            "tell_the_sweep(error='stopped at 3 kimg'); sys.exit(143)",
            Ended("a", 143, None, "stopped at 3 kimg"),
        ),
    ],
)
def test_how_a_job_ended(text: str, expected: Ended) -> None:
    with programs() as jobs:
        jobs.start("a", [JOIN + text])
        assert all_events(jobs) == [expected]


def test_a_job_that_evaluates_waits_for_the_answer() -> None:
    text = JOIN + "said = [goes_on({'fid': float(n)}, n) for n in (1, 2)]; tell_the_sweep(returned=said)"
    with programs() as jobs:
        jobs.start("a", [text])
        assert jobs.next() == Evaluated("a", 1, {"fid": 1.0})
        assert jobs.next(0.3) is None
        jobs.answer("a", goes_on=True)
        assert jobs.next() == Evaluated("a", 2, {"fid": 2.0})
        jobs.answer("a", goes_on=False)
        assert jobs.next() == Ended("a", 0, [True, False])
        assert jobs.next() is None


def test_lines_of_several_jobs_are_told_apart(capfd: pytest.CaptureFixture[str]) -> None:
    text = "import sys; print('one\\ntwo', end=''); print('tr\\xe4in', file=sys.stderr)"
    with programs(2) as jobs:
        jobs.start("3", [text])
        jobs.start("4", [text])
        assert jobs.free == 0
        all_events(jobs)
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[3] one", "[3] two", "[4] one", "[4] two"]
    assert sorted(err.splitlines()) == ["[3] tr\xe4in", "[4] tr\xe4in"]


def test_a_single_job_prints_as_it_likes(capfd: pytest.CaptureFixture[str]) -> None:
    with programs() as jobs:
        jobs.start("3", ["print('one', end='')"])
        all_events(jobs)
    assert capfd.readouterr().out == "one"


def test_each_of_several_sees_its_own_gpu(capfd: pytest.CaptureFixture[str]) -> None:
    with programs(2, Gpus(["5", "7"])) as jobs:
        for name in ("a", "b"):
            jobs.start(name, ["import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"])
        all_events(jobs)
        jobs.start("c", ["import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"])
        all_events(jobs)
    assert sorted(capfd.readouterr().out.splitlines()) == ["[a] 5", "[b] 7", "[c] 5"]


def test_a_job_is_no_process_of_this_ones_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    text = (
        JOIN + "tell_the_sweep(returned=[n for n in os.environ if n[:4] in ('RANK', 'MAST', 'WORL', 'LOCA')])"
    )
    with programs() as jobs:
        jobs.start("a", [text])
        assert all_events(jobs) == [Ended("a", 0, [])]


STOPPING = (
    JOIN
    + """
def stop(number, _):
    tell_the_sweep(error='stopped by ' + signal.Signals(number).name)
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, stop)
goes_on({}, 0)
while True: time.sleep(0.01)
"""
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_all_jobs_in_order(number: signal.Signals) -> None:
    with programs(2) as jobs:
        for name in ("a", "b"):
            jobs.start(name, [STOPPING])
        for _ in range(2):
            event = jobs.next(20)
            assert isinstance(event, Evaluated)
            jobs.answer(event.name, goes_on=True)
        os.kill(os.getpid(), number)
        ended = list(ends(jobs))
        assert jobs.seen == number
        assert jobs.free == 0
    expected = [Ended(name, 128 + number, None, f"stopped by {number.name}") for name in ("a", "b")]
    assert sorted(ended, key=lambda event: event.name) == expected
    assert all(event.stopped for event in expected)


def ends(jobs: Jobs) -> Iterator[Ended]:
    while jobs.busy:
        event = jobs.next(20)
        if isinstance(event, Ended):
            yield event


def test_a_job_ends_with_the_sweep_that_failed() -> None:
    begun = time.monotonic()
    processes = []

    def fail() -> None:
        with programs() as jobs:
            processes.append(jobs.start("a", [STOPPING]))
            assert isinstance(jobs.next(20), Evaluated)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert time.monotonic() - begun < 50  # and not after the patience for those that do not hear
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)


def test_a_job_whose_own_process_lives_on_is_over() -> None:
    """A service that it started holds its output open."""
    text = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, file=sys.stderr)"
    heard: list[str] = []
    with programs(2) as jobs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", _Heard(heard))
        jobs.start("a", [text])
        assert jobs.next(20) == Ended("a", 0)
    os.kill(int("".join(heard).split()[1]), signal.SIGKILL)


class _Heard:
    def __init__(self, heard: list[str]) -> None:
        self.write: Callable[[str], Any] = heard.append

    def flush(self) -> None:
        return None
