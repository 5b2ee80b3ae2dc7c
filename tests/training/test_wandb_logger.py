"""W&B's files written and read back for real, uploaded to a server of our own, and cut off from under the run."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ganforge.training.loggers.logger import Loggers, RunInfo
from ganforge.training.loggers.wandb_files import mend
from ganforge.training.loggers.wandb_logger import WandbLogger

wandb = pytest.importorskip("wandb")


def info(folder: Path, images_seen: int = 0, **facts: Any) -> RunInfo:
    return RunInfo(folder, "experiment", images_seen=images_seen, **facts)


def files(folder: Path) -> list[Path]:
    """The files of the starts of a run, in order."""
    return sorted(folder.glob("wandb/*run-*/run-*.wandb"))


def records(*of: Path) -> list[dict[str, Any]]:
    """What some files hold, by wandb's own reader."""
    found = []
    for file in of:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        found += [json.loads(line) for line in printed.splitlines()]
    return found


def of_type(found: list[dict[str, Any]], kind: str) -> list[Any]:
    return [record[kind] for record in found if record["type"] == kind]


def steps(*of: Path) -> list[int]:
    return [row["step"]["num"] for row in of_type(records(*of), "history")]


def sync(*paths: Path) -> str:
    command = [sys.executable, "-m", "wandb", "sync", *map(str, paths)]
    done = subprocess.run(command, cwd=paths[0].parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr


def log_a_little(logger: WandbLogger, run: RunInfo) -> None:
    seen = run.images_seen + 100
    logger.start(run)
    logger.metrics({"kimg": seen / 1000, "train/loss": 1.5}, seen)
    logger.picture("samples", torch.randint(256, (3, 4, 4), dtype=torch.uint8), seen)
    logger.summary({"best/fid": 3.25})
    logger.config({"evaluation": {"protocol": "0123abcd", "real": {"count": seen}}})
    logger.finish(0)


def test_an_offline_run_holds_everything_and_a_resume_keeps_its_id(
    no_wandb_around: None, tmp_path: Path
) -> None:
    facts = {"tags": ["mine"], "config": {"loss": {"a": 1}}, "parts": {"loss": "hinge"}, "group": "mine"}
    log_a_little(WandbLogger(tags=["ours"]), info(tmp_path, 0, **facts))
    log_a_little(WandbLogger(tags=["ours"], group="g"), info(tmp_path, 200, **facts))
    found = records(*files(tmp_path))
    runs = of_type(found, "run")
    assert [run["run_id"] for run in runs] == [(tmp_path / "wandb_run_id.txt").read_text().strip()] * 2
    assert [run["run_group"] for run in runs] == ["mine", "g"]
    assert runs[0]["job_type"] == "train"
    assert runs[0]["display_name"] == f"experiment/{tmp_path.name}"
    assert set(runs[0]["tags"]) == {"mine", "ours"}
    assert runs[0]["config"]["update"]["loss"] == {"a": 1}
    assert runs[0]["config"]["update"]["parts"] == {"loss": "hinge"}
    stamps = [r["update"]["evaluation"] for r in of_type(found, "config") if "evaluation" in r["update"]]
    assert stamps[-1] == {"protocol": "0123abcd", "real": {"count": 300}}
    history = of_type(found, "history")
    assert [row["step"]["num"] for row in history] == [100, 300]
    assert [row["item"]["kimg"] for row in history] == [0.1, 0.3]
    assert all(row["item"]["train/loss"] == 1.5 for row in history)
    assert {"best/fid": 3.25} in [summary.get("update") for summary in of_type(found, "summary")]
    assert [end["exit_code"] for end in of_type(found, "exit")] == [0, 0]
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/*.png"))) == 2
    assert "WANDB_DATA_DIR" not in os.environ


def test_a_run_that_goes_back_holds_each_step_once(no_wandb_around: None, tmp_path: Path) -> None:
    logger = WandbLogger()
    logger.start(info(tmp_path))
    for seen in (100, 200, 300):
        logger.metrics({"kimg": seen / 1000, "train/loss": 1.0}, seen)
    logger.rolled_back(100)
    logger.metrics({"kimg": 0.2, "train/loss": 2.0}, 200)
    logger.finish(0)
    assert steps(*files(tmp_path)) == [100, 200]
    history = of_type(records(*files(tmp_path)), "history")
    assert [row["item"]["train/loss"] for row in history] == [1.0, 2.0]


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    log_a_little(WandbLogger(mode="disabled"), info(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_histograms_tables_alerts_and_artifacts_reach_the_server(wandb_server: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.write_bytes(b"weights")
    data = {"name": "my digits/7", "fingerprint": "abcdef", "samples": 1797}
    logger = WandbLogger()
    logger.start(info(tmp_path, data=lambda: data))
    logger.histogram("histogram/real_logits", torch.linspace(-1, 1, 1000), 100)
    rows = [{"kimg": 0.1, "fid": 3.5}, {"kimg": 0.2, "fid": 2.5, "recall": 0.5}]
    logger.table("evaluations", rows, 100)
    logger.alert("it collapsed", "all samples look alike", 100)
    logger.checkpoint(best, {"fid": 2.5, "kimg": 0.2})
    logger.finish(3)
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(table.read_text())["columns"] == ["kimg", "fid", "recall"]
    assert json.loads(table.read_text())["data"] == [[0.1, 3.5, None], [0.2, 2.5, 0.5]]
    assert list((tmp_path / "wandb" / "artifacts").rglob("tmp*")), "artifacts wait in the run's folder"

    sync(tmp_path / "wandb")
    (run,) = wandb_server.runs
    (row,) = wandb_server.rows(run)
    histogram = row["histogram/real_logits"]
    assert sum(histogram["values"]) == 1000
    assert (histogram["bins"][0], histogram["bins"][-1]) == (-1, 1)
    assert row["evaluations"]["nrows"] == 2
    assert wandb_server.runs[run]["exit_code"] == 3
    assert [alert["title"] for alert in wandb_server.alerts] == ["it collapsed"]
    artifacts = {a["artifactTypeName"]: a for a in wandb_server.artifacts}
    assert artifacts["dataset"]["artifactCollectionName"] == "data-my-digits-7"
    assert json.loads(artifacts["dataset"]["metadata"])["fingerprint"] == "abcdef"
    assert artifacts["dataset"]["used"]
    assert {alias["alias"] for alias in artifacts["model"]["aliases"]} == {"best", "latest"}
    assert json.loads(artifacts["model"]["metadata"]) == {"fid": 2.5, "kimg": 0.2}
    assert "used" not in artifacts["model"]


@pytest.mark.parametrize(
    ("upload", "contents"), [("none", []), ("best", ["best.ckpt"]), ("all", ["best.ckpt", "last.ckpt"])]
)
def test_checkpoints_are_staged_for_upload_only_where_asked(
    no_wandb_around: None, tmp_path: Path, upload: Any, contents: list[str]
) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        (tmp_path / name).write_bytes(name.encode())
    logger = WandbLogger(upload=upload)
    logger.start(info(tmp_path))
    logger.checkpoint(tmp_path / "best.ckpt", {})
    logger.finish(0)
    (artifact,) = of_type(records(*files(tmp_path)), "artifact")
    entries = artifact["manifest"]["contents"]
    assert sorted(entry["path"] for entry in entries if "ref" not in entry) == contents
    assert [entry["ref"] for entry in entries if "ref" in entry] == (
        [] if contents else [(tmp_path / "best.ckpt").as_uri()]
    )
    staged = {path.read_bytes() for path in (tmp_path / "wandb").rglob("staging/*") if path.is_file()}
    assert staged == {name.encode() for name in contents}


def log_to(folder: Path, start: int, seen: list[int], value: float) -> None:
    logger = WandbLogger()
    logger.start(info(folder, start))
    for images_seen in seen:
        logger.metrics({"train/loss": value}, images_seen)
    logger.finish(1)


@pytest.mark.parametrize("torn", [0, 30])
def test_a_resumed_run_is_uploaded_by_one_command_each_step_once(
    wandb_server: Any, tmp_path: Path, torn: int
) -> None:
    """Steps 400 and 500 lie after the checkpoint; a power cut leaves half a record."""
    log_to(tmp_path, 0, [100, 200, 300, 400, 500], 1.0)
    (first,) = files(tmp_path)
    os.truncate(first, first.stat().st_size - torn)
    log_to(tmp_path, 300, [400, 500, 600], 2.0)
    assert steps(*files(tmp_path)) == [100, 200, 300, 400, 500, 600]
    sync(tmp_path / "wandb")
    ((run, sent),) = wandb_server.runs.items()
    assert [row["_step"] for row in wandb_server.rows(run)] == [100, 200, 300, 400, 500, 600]
    assert [row["train/loss"] for row in wandb_server.rows(run)] == [1.0] * 3 + [2.0] * 3
    assert [row["kimg"] for row in wandb_server.rows(run)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert sent["exit_code"] == 1
    assert "No runs to sync" in sync(tmp_path / "wandb")


def test_steps_that_were_uploaded_before_the_resume_are_not_logged_again(
    wandb_server: Any, tmp_path: Path
) -> None:
    log_to(tmp_path, 0, [100, 200, 300, 400], 1.0)
    sync(tmp_path / "wandb")
    log_to(tmp_path, 200, [300, 400, 500], 2.0)
    sync(tmp_path / "wandb")
    (run,) = wandb_server.runs
    assert [row["_step"] for row in wandb_server.rows(run)] == [100, 200, 300, 400, 500]


def test_a_run_that_is_resumed_online_goes_on_after_the_servers_last_step(
    wandb_server: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for start, seen in ((0, [100, 200, 300]), (100, [200, 300, 400])):
        logger = WandbLogger(mode="online")
        logger.start(info(tmp_path, start))
        for images_seen in seen:
            logger.metrics({"train/loss": 1.0}, images_seen)
        logger.finish(0)
    (run,) = wandb_server.runs
    assert [row["_step"] for row in wandb_server.rows(run)] == [100, 200, 300, 400]
    assert "WARNING" not in capfd.readouterr().err


@pytest.mark.parametrize("seed", range(3))
def test_a_file_cut_at_any_place_is_mended(no_wandb_around: None, tmp_path: Path, seed: int) -> None:
    """Rows of random length cross the blocks of 32 KiB at random places."""
    generator = torch.Generator().manual_seed(seed)
    logger = WandbLogger()
    logger.start(info(tmp_path))
    for step in range(1, 60):
        length = int(torch.randint(8000, (), generator=generator))
        logger._log(lambda length=length: {"text": "x" * length}, step)
    logger.finish(0)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    assert len(whole) > 4 * 32768
    kept = 0
    for length in [
        *torch.randint(8, len(whole), (20,), generator=generator).sort().values.tolist(),
        len(whole),
    ]:
        file.write_bytes(whole[:length])
        assert mend(tmp_path, 40) == -1
        if not file.exists():  # not even the run was in there
            assert length < 2000
            assert file.with_suffix(".wandb.broken").stat().st_size == length
            continue
        assert file.stat().st_size <= length
        mended = file.read_bytes()
        assert mended == whole[: len(mended)]
        kept = len(mended)
        mend(tmp_path, 40)
        assert file.stat().st_size == kept
    assert steps(file) == list(range(1, 41))


def test_a_file_of_another_format_stays_as_it_is(
    no_wandb_around: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "wandb" / "offline-run-1-abc" / "run-abc.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b":W&B\xe1\xbe\x01 what is to come")
    assert mend(tmp_path, 100) == -1
    assert file.read_bytes().endswith(b"to come")
    (said,) = warnings(caplog)
    assert "unknown format" in said


def loggers_of(folder: Path, logger: WandbLogger) -> Loggers:
    loggers = Loggers({"wandb": logger})
    loggers.start(info(folder))
    return loggers


def core_of_this_process() -> int:
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    (core,) = [pid for pid in pids if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return core


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "ganforge" and record.levelno >= logging.WARNING
    ]


def test_a_process_of_wandbs_that_is_killed_costs_one_warning(
    no_wandb_around: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    loggers = loggers_of(tmp_path, WandbLogger())
    loggers.metrics({"train/loss": 1.0}, 100)
    os.kill(core_of_this_process(), signal.SIGKILL)
    for seen in range(200, 1000, 100):
        loggers.metrics({"train/loss": 1.0}, seen)
        time.sleep(0.02)  # for the system to notice
    loggers.finish(0)
    (said,) = warnings(caplog)
    assert said.startswith("logger wandb failed and is left out from now on: Connection")
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 400 kB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield folder
    wandb.teardown()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_one_warning(
    no_wandb_around: None,
    small_disk: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    loggers = loggers_of(small_disk, WandbLogger())
    values = {f"train/{number}": float(number) for number in range(400)}
    for seen in range(100, 10000, 100):
        loggers.metrics(values, seen)
        if warnings(caplog):
            break
        time.sleep(0.02)  # for the other process to write
    loggers.metrics(values, 10100)
    loggers.finish(0)
    (said,) = warnings(caplog)
    assert said.startswith("logger wandb failed and is left out from now on: OSError")
    assert "No space left on device" in said
    assert "Traceback" not in capfd.readouterr().err
    (file,) = files(small_disk)
    assert mend(small_disk, 100000) == -1  # what had been written can be uploaded
    assert steps(file)[:3] == [100, 200, 300]


def test_a_server_that_cannot_be_reached_makes_the_run_an_offline_one(
    no_wandb_around: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_a_little(WandbLogger(mode="online", connect_seconds=1.0, finish_seconds=10.0), info(tmp_path))
    (said,) = warnings(caplog)
    assert said.startswith("W&B cannot be reached, the run is logged offline")
    assert f"wandb sync {tmp_path / 'wandb'}" in said
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert [row["item"]["train/loss"] for row in of_type(records(file), "history")] == [1.5]


def test_a_server_that_is_lost_on_the_way_holds_the_end_up_no_longer_than_asked(
    wandb_server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    loggers = loggers_of(tmp_path, WandbLogger(mode="online", finish_seconds=1.0))
    wandb_server.lost = True
    loggers.metrics({"train/loss": 1.0}, 100)
    start = time.monotonic()
    loggers.finish(0)
    assert time.monotonic() - start < 60  # W&B itself would try for days
    (said,) = warnings(caplog)
    assert said.startswith("W&B did not finish uploading in 1 s; wandb sync --include-online")
    assert "ERROR" not in capfd.readouterr().err
    wandb_server.lost = False
    mend(tmp_path, 100)
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", str(tmp_path / "wandb")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (run,) = wandb_server.runs
    assert [row["_step"] for row in wandb_server.rows(run)] == [100]


def test_a_run_leaves_no_process_thread_or_open_file(no_wandb_around: None, tmp_path: Path) -> None:
    def left() -> tuple[int, list[str]]:
        return len(os.listdir("/proc/self/fd")), sorted(
            Path(f"/proc/{pid}/cmdline").read_text()
            for file in Path(f"/proc/{os.getpid()}/task").glob("*/children")
            for pid in file.read_text().split()
        )

    (tmp_path / "0").mkdir()
    log_a_little(WandbLogger(), info(tmp_path / "0"))  # what is opened once, for good
    before = left()
    for number in "12":
        (tmp_path / number).mkdir()
        log_a_little(WandbLogger(), info(tmp_path / number))
    assert left() == before
