"""Each job of a sweep is a process of its own: what becomes of the others, and of the sweep, when one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ganforge as package

ENDLESS = ("total_kimg=1000000", "callbacks.checkpoint.every_kimg=0", "callbacks.log.every_kimg=0.032")
ENDLESS += ("callbacks.samples=null", "hydra.sweep.dir=sweep")

KILLING = """
import os, signal
from ganforge.losses.hinge import Hinge

class Killing(Hinge):
    def __init__(self, job, number):
        super().__init__()
        if (job, number) == (0, 7):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_job_that_is_killed_leaves_the_others_alone(train: Any, tmp_path: Path) -> None:
    """The user's own folder of YAML files, and the job's number, reach each job."""
    (tmp_path / "killing.py").write_text(KILLING)
    (tmp_path / "own" / "loss").mkdir(parents=True)
    (tmp_path / "own" / "loss" / "mine.yaml").write_text(
        "_target_: killing.Killing\njob: ${hydra:job.num}\nnumber: 1\n"
    )
    words = (
        "--config-dir",
        "own",
        "loss=mine",
        "loss.number=7,8",
        "stop.metric=null",
        "hydra.sweep.dir=sweep",
    )
    outcome = train("-m", *words)
    assert outcome.code == 1
    assert "error: job 0: was killed by SIGKILL" in outcome.err
    assert "Traceback" not in outcome.err
    checkpoints = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.ckpt")]
    assert checkpoints == [Path("sweep/1/checkpoints/last.ckpt")]


def test_a_run_that_goes_on_is_no_sweep(train: Any, run: Path) -> None:
    train("-m", f"resume={run}", "seed=0,1").refuses("resume=...", "leave out -m")


@pytest.mark.slow
def test_torchrun_does_not_start_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its processes waits for the others."""
    monkeypatch.setenv("PYTHONPATH", str(Path(package.__file__).parents[1]), prepend=os.pathsep)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "ganforge", "train", "-m", "trainer=ddp", "seed=0,1", "hydra.sweep.dir=sweep"]
    done = subprocess.run([*torchrun, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("torchrun and srun start one run") == 1


@pytest.fixture
def sweep(started: Any, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts an endless sweep, and returns it once its first job plays."""
    begun: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        begun.append(started("-m", "seed=0,1", *ENDLESS))
        for line in begun[-1].stderr:
            if "img/s" in line:
                return begun[-1]
        raise AssertionError("the first job did not play")

    yield start
    for process in begun:
        process.kill()
        process.communicate(timeout=60)


def checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_sweep_stops_its_job_and_it(
    number: signal.Signals, sweep: Any, tmp_path: Path
) -> None:
    process = sweep()
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert f"stopped by {number.name} at" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert checkpoint(tmp_path / "sweep" / "0")["clock"]["round"] > 0
    assert not (tmp_path / "sweep" / "1").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")
def test_a_job_ends_after_its_round_when_the_sweep_is_killed(sweep: Any, tmp_path: Path) -> None:
    process = sweep()
    job = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    until = time.monotonic() + 60
    while Path(f"/proc/{job}").exists() and "State:\tZ" not in Path(f"/proc/{job}/status").read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert checkpoint(tmp_path / "sweep" / "0")["clock"]["round"] > 0
