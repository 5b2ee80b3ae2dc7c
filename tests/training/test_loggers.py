"""Loggers written and read back for real; none of them can stop a run."""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ganforge.training.loggers.csv_logger import CsvLogger
from ganforge.training.loggers.logger import Logger, Loggers, RunInfo
from ganforge.training.loggers.tensorboard_logger import TensorBoardLogger
from ganforge.training.loggers.wandb_logger import WandbLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def info(folder: Path, images_seen: int = 0, **facts: Any) -> RunInfo:
    return RunInfo(folder, "experiment", images_seen=images_seen, **facts)


def csv_logger(folder: Path, images_seen: int = 0) -> CsvLogger:
    logger = CsvLogger()
    logger.start(info(folder, images_seen))
    return logger


def test_csv_has_a_row_a_line_and_a_column_a_figure(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    loss = random.random()
    logger.metrics({"kimg": 0.1, "loss": loss}, 100)
    logger.metrics({"kimg": 0.2, "loss": 2.0}, 200)
    logger.metrics({"kimg": 0.2, "fid": 3.5}, 200)  # a new column
    logger.metrics({"kimg": 0.3, "loss": 4.0}, 300)
    found = rows(tmp_path)
    assert [row["images_seen"] for row in found] == ["100", "200", "200", "300"]
    assert float(found[0]["loss"]) == pytest.approx(loss, rel=1e-5)
    assert [row["fid"] for row in found] == ["", "", "3.5", ""]
    assert list(tmp_path.iterdir()) == [tmp_path / "metrics.csv"]


def test_a_resumed_csv_drops_what_lies_after_the_checkpoint(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    for seen in range(100, 600, 100):
        logger.metrics({"kimg": seen / 1000, "loss": float(seen)}, seen)
    logger = csv_logger(tmp_path, images_seen=300)
    logger.metrics({"kimg": 0.4, "loss": -1.0}, 400)
    found = rows(tmp_path)
    assert [row["images_seen"] for row in found] == ["100", "200", "300", "400"]
    assert found[-1]["loss"] == "-1"


def test_a_run_that_starts_anew_in_its_folder_starts_an_empty_csv(tmp_path: Path) -> None:
    csv_logger(tmp_path).metrics({"loss": 1.0}, 100)
    csv_logger(tmp_path)
    assert rows(tmp_path) == []


def test_a_last_row_cut_short_at_any_place_does_not_stop_the_resume(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    for seen in (1000, 2000):
        logger.metrics({"kimg": seen / 1000, "loss": 0.5, "fid": 1.25}, seen)
    path = tmp_path / "metrics.csv"
    whole = path.read_bytes()
    last = whole.index(b"2000")
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        logger = csv_logger(tmp_path, images_seen=1000)
        logger.metrics({"kimg": 2.0, "loss": 0.5, "fid": 1.25}, 2000)
        assert path.read_bytes() == whole
    path.write_bytes(whole[:last] + b"\x00" * 40)  # as a power cut leaves it
    csv_logger(tmp_path, images_seen=1000)
    assert path.read_bytes() == whole[:last]


class Recorder(Logger):
    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, list[str]()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise RuntimeError("the server is gone")

    def start(self, run: RunInfo) -> None:
        self._note("start")

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        assert values["kimg"] == images_seen / 1000
        self._note("metrics")

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        self._note("picture")

    def summary(self, values: Mapping[str, Any]) -> None:
        self._note("summary")

    def finish(self, exit_code: int) -> None:
        self._note("finish")


CALLS = ["start", "metrics", "picture", "summary", "metrics", "finish"]


@pytest.mark.parametrize("fails", dict.fromkeys(CALLS))
def test_a_logger_that_fails_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    # Whatever commands ran in this process before: one handler sees each record, pytest's at the root.
    monkeypatch.setattr(logging.getLogger("ganforge"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("ganforge"), "handlers", [])
    broken, healthy = Recorder(fails), Recorder()
    group = Loggers({"broken": broken, "healthy": healthy})
    group.start(info(tmp_path))
    group.metrics({"loss": 1.0}, 64)
    group.picture("samples", torch.zeros(1, 2, 2, dtype=torch.uint8), 64)
    group.summary({"best/fid": 1.0})
    group.metrics({"loss": 1.0}, 128)
    group.finish(0)
    assert healthy.calls == CALLS
    assert broken.calls == CALLS[: CALLS.index(fails) + 1]
    assert [record.getMessage() for record in caplog.records] == [
        "logger broken failed and is left out from now on: RuntimeError: the server is gone"
    ]


def wandb_records(folder: Path) -> list[dict[str, Any]]:
    """Everything in the offline files of a run's folder, fragment after fragment, by wandb's own reader."""
    records = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        records += [json.loads(line) for line in printed.splitlines()]
    return records


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """W&B with nothing of the environment's, and with nobody at the other end."""
    module = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    yield module
    module.teardown()


def log_a_little(logger: Logger, run: RunInfo) -> None:
    seen = run.images_seen + 100
    logger.start(run)
    logger.metrics({"kimg": seen / 1000, "train/loss": 1.5}, seen)
    logger.picture("samples", torch.randint(256, (3, 4, 4), dtype=torch.uint8), seen)
    logger.summary({"best/fid": 3.25})
    logger.config({"evaluation": {"protocol": "0123abcd", "real": {"count": seen}}})
    logger.finish(0)


def of_type(records: list[dict[str, Any]], kind: str) -> list[Any]:
    return [record[kind] for record in records if record["type"] == kind]


def test_wandb_offline_holds_the_run_and_a_resume_keeps_its_id(wandb: Any, tmp_path: Path) -> None:
    facts = {"tags": ["mine"], "config": {"loss": {"a": 1}}}
    for start in (0, 200):
        log_a_little(WandbLogger(tags=["ours"], group="g"), info(tmp_path, start, **facts))
    records = wandb_records(tmp_path)

    runs = of_type(records, "run")
    assert [run["run_id"] for run in runs] == [(tmp_path / "wandb_run_id.txt").read_text().strip()] * 2
    assert runs[0]["display_name"] == f"experiment/{tmp_path.name}"
    assert set(runs[0]["tags"]) == {"mine", "ours"}
    assert runs[0]["config"]["update"]["loss"] == {"a": 1}
    stamps = [r["update"]["evaluation"] for r in of_type(records, "config") if "evaluation" in r["update"]]
    assert stamps[-1] == {"protocol": "0123abcd", "real": {"count": 300}}
    history = sorted(of_type(records, "history"), key=lambda row: row["step"]["num"])
    assert [row["step"]["num"] for row in history] == [100, 300]
    assert [row["item"]["kimg"] for row in history] == [0.1, 0.3]
    assert all(row["item"]["train/loss"] == 1.5 for row in history)
    assert {"best/fid": 3.25} in [summary.get("update") for summary in of_type(records, "summary")]
    assert [end["exit_code"] for end in of_type(records, "exit")] == [0, 0]
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/*.png"))) == 2


def test_wandb_that_cannot_be_reached_is_logged_offline(
    wandb: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ganforge"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("ganforge"), "handlers", [])
    log_a_little(WandbLogger(mode="online", connect_seconds=1.0, finish_seconds=10.0), info(tmp_path))
    assert "W&B cannot be reached" in caplog.text
    assert [row["item"]["train/loss"] for row in of_type(wandb_records(tmp_path), "history")] == [1.5]


def test_wandb_disabled_writes_nothing(tmp_path: Path) -> None:
    log_a_little(WandbLogger(mode="disabled"), info(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_holds_figures_and_pictures_and_a_resume_hides_what_came_after(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start, ends in ((0, (100, 200, 300)), (200, (300, 400))):
        logger = TensorBoardLogger()
        logger.start(info(tmp_path, start))
        for seen in ends:
            logger.metrics({"kimg": seen / 1000, "train/loss": start + seen / 1000}, seen)
        logger.picture("samples", torch.randint(256, (3, 4, 4), dtype=torch.uint8), ends[-1])
        logger.finish(0)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [100, 200, 300, 400]
    values = [event.value for event in events.Scalars("train/loss")]
    assert values == pytest.approx([0.1, 0.2, 200.3, 200.4])
    assert [event.step for event in events.Images("samples")] == [400]
