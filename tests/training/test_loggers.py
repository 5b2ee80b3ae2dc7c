"""Loggers written and read back for real; none of them can stop a run."""

from __future__ import annotations

import csv
import logging
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ganforge.training.loggers.csv_logger import CsvLogger
from ganforge.training.loggers.logger import Logger, Loggers, RunInfo
from ganforge.training.loggers.mlflow_logger import MlflowLogger
from ganforge.training.loggers.tensorboard_logger import TensorBoardLogger
from ganforge.training.loggers.trackio_logger import TrackioLogger


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

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        self._note("histogram")

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        self._note("table")

    def alert(self, title: str, text: str, images_seen: int) -> None:
        self._note("alert")

    def checkpoint(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._note("checkpoint")

    def summary(self, values: Mapping[str, Any]) -> None:
        self._note("summary")

    def config(self, values: Mapping[str, Any]) -> None:
        self._note("config")

    def finish(self, exit_code: int) -> None:
        self._note("finish")


CALLS = ["start", "metrics", "picture", "histogram", "table", "alert", "checkpoint", "summary", "config"]
CALLS += ["metrics", "finish"]


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
    group.histogram("histogram/real_logits", torch.zeros(3), 64)
    group.table("evaluations", [{"fid": 1.0}], 64)
    group.alert("title", "text", 64)
    group.checkpoint(tmp_path / "best.ckpt", {"fid": 1.0})
    group.summary({"best/fid": 1.0})
    group.config({"evaluation": {}})
    group.metrics({"loss": 1.0}, 128)
    group.finish(0)
    assert healthy.calls == CALLS
    assert broken.calls == CALLS[: CALLS.index(fails) + 1]
    assert [record.getMessage() for record in caplog.records] == [
        "logger broken failed and is left out from now on: RuntimeError: the server is gone"
    ]


ROWS = [{"kimg": 0.1, "fid": 3.5}, {"kimg": 0.2, "fid": 2.5, "recall": 0.5}]


def test_tensorboard_holds_figures_and_pictures_and_a_resume_hides_what_came_after(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for start, ends in ((0, (100, 200, 300)), (200, (300, 400))):
        logger = TensorBoardLogger()
        logger.start(info(tmp_path, start))
        for seen in ends:
            logger.metrics({"kimg": seen / 1000, "train/loss": start + seen / 1000}, seen)
        logger.picture("samples", torch.randint(256, (3, 4, 4), dtype=torch.uint8), ends[-1])
        logger.histogram("histogram/real_logits", torch.linspace(-1, 1, 100), ends[-1])
        logger.table("evaluations", ROWS, ends[-1])
        logger.finish(0)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [100, 200, 300, 400]
    values = [event.value for event in events.Scalars("train/loss")]
    assert values == pytest.approx([0.1, 0.2, 200.3, 200.4])
    assert [event.step for event in events.Images("samples")] == [400]
    (histogram,) = events.Histograms("histogram/real_logits")
    assert (histogram.step, histogram.histogram_value.num) == (400, 100)
    text = events.Tensors("evaluations/text_summary")[-1]
    assert text.tensor_proto.string_val[0].decode().splitlines() == [
        "| kimg | fid | recall |",
        "| --- | --- | --- |",
        "| 0.1 | 3.5 |  |",
        "| 0.2 | 2.5 | 0.5 |",
    ]


# What is there of them where nothing is taken back: each step once, the first one that was logged for it.
LOSSES = [(100, 0.1), (200, 0.2), (300, 0.3), (350, 1000.0), (400, 200.4), (450, 1000.0)]


def log_and_resume(make: Callable[[], Logger], folder: Path) -> None:
    """Two starts: the second goes on from 200 images, before the last step of the first; each goes back once."""
    facts = {"tags": ["mine"], "config": {"loss": {"gamma": 1}}, "parts": {"loss": "hinge"}, "group": "sweep"}
    data = {"name": "digits", "fingerprint": "0123456789" * 6, "samples": 1797}
    for start, ends, exit_code in ((0, (100, 200, 300), 143), (200, (300, 400), 1)):
        logger = make()
        logger.start(info(folder, start, data=lambda: data, **facts))
        for seen in ends:
            logger.metrics({"kimg": seen / 1000, "train/loss": start + seen / 1000}, seen)
        logger.picture("samples", torch.randint(256, (3, 4, 4), dtype=torch.uint8), ends[-1])
        logger.histogram("histogram/real_logits", torch.linspace(-1, 1, 100), ends[-1])
        logger.table("evaluations", ROWS, ends[-1])
        logger.rolled_back(250)
        for seen in (260, ends[-1], ends[-1] + 50):
            logger.metrics({"kimg": seen / 1000, "train/loss": 1000.0}, seen)
        logger.summary({"best/fid": 2.5, "stop/reason": "patience"})
        logger.config({"evaluation": {"protocol": "0123abcd"}})
        logger.checkpoint(folder / "best.ckpt", {"fid": 2.5})
        logger.alert("it failed", "for a reason", ends[-1])
        logger.finish(exit_code)


def test_mlflow_holds_the_run_in_a_file_beside_it_and_a_resume_logs_no_step_twice(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    folder = tmp_path / "run"
    folder.mkdir()
    log_and_resume(MlflowLogger, folder)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == (folder / "mlflow_run_id.txt").read_text().strip()
    assert run.info.status == "FAILED"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(loss.step, loss.value) for loss in losses] == LOSSES
    assert run.data.metrics["best/fid"] == 2.5
    assert run.data.params == {"loss.gamma": "1"}
    expected = {"mine": "true", "parts.loss": "hinge", "group": "sweep", "stop/reason": "patience"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.tags["alert"] == "it failed: for a reason"
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "012345678901234567890123456789012345")
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"evaluations.json", "evaluation.json", "images"} <= artifacts
    assert all((tmp_path / "mlflow") in path.parents for path in tmp_path.rglob("evaluations.json"))


def test_trackio_holds_the_run_and_a_resume_logs_no_step_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    log_and_resume(TrackioLogger, tmp_path)
    storage = trackio.SQLiteStorage
    name = (tmp_path / "trackio_run.txt").read_text().strip()
    assert storage.get_runs("ganforge") == [name]
    logs = storage.get_logs("ganforge", name)
    losses = [(row["step"], row["train/loss"]) for row in logs if "train/loss" in row]
    assert losses == LOSSES
    assert {row["step"] for row in logs if "samples" in row} == {300, 400}
    assert {row["step"] for row in logs if "histogram/real_logits" in row} == {300, 400}
    config = storage.get_run_config("ganforge", name)
    assert config["parts"] == {"loss": "hinge"}
    assert config["data"]["fingerprint"] == "0123456789" * 6
    alerts = storage.get_alerts("ganforge", name)
    assert [alert["title"] for alert in alerts] == ["it failed"] * 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("logger", "package"), [(MlflowLogger(), "mlflow"), (TrackioLogger(), "trackio")])
def test_what_is_not_installed_is_said_once(
    logger: Logger,
    package: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("ganforge"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("ganforge"), "handlers", [])
    monkeypatch.setitem(sys.modules, package, None)
    loggers = Loggers({package: logger})
    loggers.start(info(tmp_path))
    loggers.metrics({"loss": 1.0}, 64)
    loggers.finish(0)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith(f"pip install 'ganforge[{package}]'")
