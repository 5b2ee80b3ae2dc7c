"""Grids whose jobs are played by joblib's workers, or by those of a Ray that is started for them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ganforge.commands.sweeps import workers
from ganforge.commands.sweeps.gpus import Gpus

LAUNCHERS = {"joblib": ("hydra/launcher=joblib", "sweep.n_jobs=2"), "ray": ("hydra/launcher=ray",)}
PLAIN = ("callbacks.samples=null", "callbacks.log.progress=false", "hydra.sweep.dir=sweep")


@pytest.fixture(scope="session")
def ray_that_starts() -> None:
    """Ray's own services need shared memory and ports on the loopback."""
    pytest.importorskip("ray")
    program = "import ray; ray.init(include_dashboard=False, logging_level='error'); ray.shutdown()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"Ray does not start here: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "ray":
        request.getfixturevalue("ray_that_starts")
    return LAUNCHERS[request.param]


def processes_of(folder: Path) -> list[str]:
    """The command lines of those that have it as their working directory."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (each / "cwd").resolve() == folder.resolve() and int(each.name) != os.getpid():
                found.append((each / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_each_job_has_its_folder_and_a_failing_one_leaves_the_others_alone(
    launcher: tuple[str, ...], started: Any, tmp_path: Path
) -> None:
    words = ("optimizer.generator.lr=1e-3,1e30", "total_kimg=1", "metrics=none", *PLAIN)
    process = started("-m", *launcher, *words)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    assert re.search(r"^error: job 1: .* became .* kimg", err, re.MULTILINE), err
    assert "Traceback" not in err
    assert [path.parent.parent.name for path in tmp_path.rglob("last.ckpt")] == ["0"]
    assert (tmp_path / "sweep" / "1" / "failure.txt").exists()
    until = time.monotonic() + 20
    while processes_of(tmp_path):
        assert time.monotonic() < until, processes_of(tmp_path)
        time.sleep(0.2)


@pytest.mark.slow
def test_a_signal_stops_every_job_in_order(launcher: tuple[str, ...], started: Any, tmp_path: Path) -> None:
    endless = ("total_kimg=1000000", "callbacks.checkpoint.every_kimg=0", "callbacks.log.every_kimg=0.032")
    process = started("-m", *launcher, "seed=0,1", *endless, "metrics=none", *PLAIN)
    folders = [tmp_path / "sweep" / name for name in ("0", "1")]
    until = time.monotonic() + 180
    while not all((folder / "metrics.csv").exists() for folder in folders):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert err.splitlines()[-1].endswith("the sweep is stopped by SIGTERM")
    assert "Traceback" not in err
    for folder in folders:
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert state["clock"]["round"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")
def test_a_worker_of_joblibs_that_is_killed_ends_the_sweep_and_its_job_in_order(
    started: Any, tmp_path: Path
) -> None:
    endless = ("total_kimg=1000000", "callbacks.checkpoint.every_kimg=0", "callbacks.log.every_kimg=0.032")
    process = started("-m", *LAUNCHERS["joblib"], "seed=0,1", *endless, "metrics=none", *PLAIN)
    folders = [tmp_path / "sweep" / name for name in ("0", "1")]
    until = time.monotonic() + 180
    while not all((folder / "metrics.csv").exists() for folder in folders):
        assert time.monotonic() < until
        time.sleep(0.2)
    (worker, *_) = (child for child in children_of(process.pid) if len(children_of(child)) == 1)
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "a worker of joblib was killed" in err.splitlines()[-1]
    until = time.monotonic() + 60
    while not any((folder / "checkpoints" / "last.ckpt").exists() for folder in folders):
        assert time.monotonic() < until
        time.sleep(0.2)


def children_of(process: int) -> list[int]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("hydra/launcher=ray", "sweep.n_jobs=2"), ["sweep.n_jobs=2", "hydra.launcher.cpus=2"]),
        (("hydra/launcher=ray", "hydra.launcher.cpus=none"), ["hydra.launcher.cpus=none", "number from 0"]),
        (("hydra/launcher=ray", "+hydra.launcher.colour=1"), ["hydra/launcher=ray", "colour"]),
        (("hydra/launcher=joblib", "sweep.n_jobs=0"), ["sweep.n_jobs=0", "-1 for all cores"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_settings_that_cannot_be_are_refused(words: tuple[str, ...], parts: list[str], train: Any) -> None:
    if words[0].endswith("ray"):
        pytest.importorskip("ray")
    train("-m", "seed=0,1", *words).refuses(*parts)


def test_each_worker_has_gpus_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "gpus_here", lambda: Gpus(["3", "4", "6", "7", "9"]))
    groups = workers._groups({"0": 1, "1": 2})
    assert groups == ["3,4", "6,7"]
    assert workers._groups({"0": None}) == ["3,4,6,7,9"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    seen = []
    with workers._one_of(groups, tmp_path, "0"):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        with workers._one_of(groups, tmp_path, "1"):
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
            with workers._one_of(groups, tmp_path, "3"):  # more jobs than groups: shared
                seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["3,4", "6,7", "6,7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "all"
    with workers._one_of(groups, tmp_path, "1"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,4"
