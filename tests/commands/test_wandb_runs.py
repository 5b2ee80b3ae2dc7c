"""Weights & Biases under whole runs: those of a sweep belong together, and none needs W&B to live."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from ganforge.report.data import report_data
from ganforge.report.pictures import Embedded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into"),
]


@pytest.fixture(autouse=True)
def _nobody_at_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)


def records(folder: Path) -> dict[str, list[Any]]:
    """What the one W&B file in a run's folder holds, by kind, as wandb's own reader finds it."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    found = defaultdict(list)
    for line in printed.splitlines():
        record = json.loads(line)
        found[record["type"]].append(record[record["type"]])
    return found


def cores(folder: Path) -> list[int]:
    """W&B's processes that have a file below the folder open, or are at home there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [os.readlink(link) for link in [process / "cwd", *process.glob("fd/*")]]
            if b"wandb-core" in (process / "cmdline").read_bytes() and any(str(folder) in f for f in held):
                found.append(int(process.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_a_sweep_leaves_a_folder_and_a_run_a_job_in_one_group_and_the_failed_one_says_so(
    typed: Any, tmp_path: Path
) -> None:
    words = ("model=mlp", "metrics=none", "total_kimg=0.064", "batch_size=32", "trainer=cpu")
    words += ("callbacks.samples=null", "tags=[mine]")
    lr = "optimizer.discriminator.lr=1e-4,1e30,2e-4"
    outcome = typed("train", "-m", "sweep.n_jobs=2", *words, lr, "seed=0,1", "hydra.sweep.dir=my_sweep")
    assert outcome.code == 1, outcome.err
    assert "job 2: " in outcome.err
    folders = sorted(path for path in (tmp_path / "my_sweep").iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == ["0", "1", "2", "3", "4", "5"]
    written = [records(folder) for folder in folders]
    runs = [run for of_job in written for run in of_job["run"]]
    assert len({run["run_id"] for run in runs}) == 6
    assert {run["run_group"] for run in runs} == {"my_sweep"}
    assert {run["job_type"] for run in runs} == {"train"}
    assert {tuple(run["tags"]) for run in runs} == {("mine",)}
    assert runs[0]["config"]["update"]["parts"]["data"] == "digits"
    assert runs[0]["config"]["update"]["parts"]["loss"] == "hinge"
    ends = [end for of_job in written for end in of_job["exit"]]
    assert [end.get("exit_code", 0) for end in ends] == [0, 0, 1, 1, 0, 0]
    *said_before, alert = written[2]["alert"]  # a check of the run's health may have spoken of the NaN
    assert all("failed" not in each["title"] for each in said_before)
    assert alert["title"].endswith("/2 failed")
    assert alert["text"] == (folders[2] / "failure.txt").read_text().strip()
    (alert,) = written[0]["alert"]
    assert alert["title"].endswith("/0 finished")
    assert all((folder / "checkpoints" / "last.ckpt").exists() for folder in [*folders[:2], *folders[4:]])
    assert cores(tmp_path) == []
    reported = report_data([tmp_path / "my_sweep"], Embedded(6), str)["runs"]
    assert [(Path(run["path"]), run["state"]) for run in reported] == [
        (folder, "failed" if folder.name in "23" else "ended") for folder in folders
    ]
    assert reported[2]["reason"] == (folders[2] / "failure.txt").read_text().strip()


def test_a_run_goes_on_when_wandbs_process_is_killed(own_environment: dict[str, str], tmp_path: Path) -> None:
    words = ["model=mlp", "metrics=none", "batch_size=32", "trainer=cpu", "total_kimg=1000000"]
    words += ["callbacks.log.every_kimg=0.032", "callbacks.samples=null", "hydra.run.dir=run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ganforge", "train", *words, "callbacks.checkpoint.every_kimg=0"],
        cwd=tmp_path,
        env=own_environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_rows(tmp_path / "run", 2)
        (core,) = cores(tmp_path)
        os.kill(core, signal.SIGKILL)
        wait_for_rows(tmp_path / "run", 20 + len(images_seen(tmp_path / "run")))
        process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, err
    (warning,) = [line for line in err.splitlines() if "wandb" in line and line.startswith("warning")]
    # Which words the system has for it depends on whether the socket was being read or written.
    assert warning.startswith("warning: logger wandb failed and is left out from now on: "), warning
    assert "Traceback" not in err
    seen = images_seen(tmp_path / "run")
    assert seen == list(range(32, seen[-1] + 32, 32))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def images_seen(folder: Path) -> list[int]:
    """The clock of each whole row of a run's metrics."""
    file = folder / "metrics.csv"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [int(row["images_seen"]) for row in csv.DictReader(line for line in lines if line.endswith("\n"))]


def wait_for_rows(folder: Path, number: int) -> None:
    until = time.monotonic() + 120
    while len(images_seen(folder)) < number:
        assert time.monotonic() < until
        time.sleep(0.1)
