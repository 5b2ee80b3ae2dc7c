"""Several processes share an evaluation: the same file to the last byte, and none is left behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ganforge as package

LONG = ("num_samples=3000000", "batch_size=64")  # minutes, of which a test waits for seconds
PROC = Path("/proc")
needs_proc = pytest.mark.skipif(
    not (PROC / "self" / "stat").exists(), reason="there is no /proc to look into"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process that finds the package, takes one thread, and has a cache of its own."""
    paths = [str(Path(package.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "GANFORGE_CACHE": str(tmp_path / "cache"),
    }
    return os.environ | own


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    """`python -m WORDS` in a session of its own, of which nothing outlives the test."""
    begun: list[subprocess.Popen[str]] = []
    # Where the tests run in a shell's background SIGINT is ignored, and children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *words]
        begun.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield call
    signal.signal(signal.SIGINT, before)
    for process in begun:
        for pid in in_session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def stat(pid: str) -> list[str]:
    """State, parent, group and session of a process; empty where it is gone."""
    try:
        return (PROC / pid / "stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return []


def in_session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = {int(path.name): stat(path.name) for path in PROC.glob("[0-9]*")}
    return [pid for pid, facts in found.items() if facts and facts[0] != "Z" and facts[3] == str(leader)]


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {seconds:g} s")


def others(process: subprocess.Popen[str], number: int) -> list[int]:
    """The processes beside the first, once all run."""

    def children() -> list[int]:
        found = [pid for pid in in_session(process.pid) if pid != process.pid]
        return found if len(found) == number else []

    return list(wait_for(children, 100, f"{number} further processes"))


def busy(process: subprocess.Popen[str], folder: Path) -> int:
    """The second process, when the real images have been read and samples are being made."""
    (other,) = others(process, 1)
    wait_for(lambda: list((folder / "cache").glob("features-*")), 200, "features of the real images")
    time.sleep(0.5)
    assert process.poll() is None
    return other


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=240)
    return process.returncode, err


@pytest.fixture
def words(trained: Path) -> tuple[str, ...]:
    return "ganforge", "evaluate", f"checkpoint={trained}", "metrics=digits", "out=out.json"


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("processes", [2, 3])
def test_the_file_is_the_same_to_the_last_byte(
    processes: int, start: Start, words: tuple[str, ...], ganforge: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whoever extracted the features of either side, with a last batch that is smaller, and of the picture too."""
    more = ("num_samples=70", "batch_size=16", "seeds=2", "neighbours=3", "truncation=0.8", "device=cpu")
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path / "cache_of_one"))
    assert ganforge(*words[1:-1], *more, "out=alone.json").code == 0
    code, err = finish(start(*words, *more, f"processes={processes}"))
    assert code == 0, err
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    pictures = [(tmp_path / f"{name}_neighbours.png").read_bytes() for name in ("out", "alone")]
    assert pictures[0] == pictures[1]
    assert err.count("written to") == 1


@pytest.mark.slow
@needs_proc
def test_torchrun(
    start: Start, words: tuple[str, ...], ganforge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("num_samples=70", "batch_size=16", "device=cpu")
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path / "cache_of_one"))
    assert ganforge(*words[1:-1], *more, "out=alone.json").code == 0
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    code, err = finish(start(*launcher, *words, *more))
    assert code == 0, err
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert json.loads((tmp_path / "out.json").read_text())["scores"]


@pytest.mark.slow
@needs_proc
def test_a_process_that_is_killed_ends_the_whole(
    start: Start, words: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*words, *LONG, "processes=2")
    os.kill(busy(process, tmp_path), signal.SIGKILL)
    code, err = finish(process)
    assert code == 1
    assert "ganforge: process 1 of 2 was killed by SIGKILL" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()
    assert in_session(process.pid) == []


@pytest.mark.slow
@needs_proc
def test_a_process_that_is_killed_as_it_starts(start: Start, words: tuple[str, ...], tmp_path: Path) -> None:
    """Before it has met the first one, which waits for it."""
    process = start(*words, *LONG, "processes=3")
    os.kill(others(process, 2)[0], signal.SIGKILL)
    code, err = finish(process)
    assert code == 1
    assert "of 3 was killed by SIGKILL" in err
    assert in_session(process.pid) == []


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("when", ["starting", "busy"])
def test_an_interrupt_leaves_no_process_behind(
    when: str, start: Start, words: tuple[str, ...], tmp_path: Path
) -> None:
    """As Ctrl-C sends it: to all of them."""
    process = start(*words, *LONG, "processes=2")
    if when == "starting":
        others(process, 1)
    else:
        busy(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    code, _ = finish(process)
    assert code != 0
    assert not (tmp_path / "out.json").exists()
    wait_for(lambda: not in_session(process.pid), 20, "the end of all processes")


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_nobody_outlives_the_first_process(
    number: signal.Signals, start: Start, words: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*words, *LONG, "processes=2")
    busy(process, tmp_path)
    os.kill(process.pid, number)
    code, err = finish(process)
    assert code == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()
    wait_for(lambda: not in_session(process.pid), 20, "the end of all processes")


@pytest.mark.slow
@needs_proc
def test_a_mistake_is_said_once(start: Start, words: tuple[str, ...]) -> None:
    process = start(*words, "processes=2", "real=nowhere")
    code, err = finish(process)
    assert code == 2
    assert next(line for line in err.splitlines() if line).startswith("ganforge: real=nowhere does not exist")
    assert err.count("real=nowhere") == 1
    assert in_session(process.pid) == []
