"""Evaluation inside a run: curves, the final figures, the best checkpoints, and runs that end early."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SMALL = (
    "train",
    "model=mlp",
    "trainer=cpu",
    "logger=csv",
    "batch_size=32",
    "total_kimg=0.64",
    "metrics.num_samples=60",
    "metrics.final_num_samples=100",
    "callbacks.evaluation.every_kimg=0.064",
    "callbacks.samples=null",
)
FEW = "metrics.compute=[fid,precision_recall,density_coverage]"

Train = Callable[..., Path]


@pytest.fixture
def train(ganforge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """A run of 0.64 kimg with ten evaluations; its folder."""
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path / "cache"))

    def run(*words: str, name: str = "run") -> Path:
        outcome = ganforge(*SMALL, FEW, f"hydra.run.dir={tmp_path / name}", *words)
        assert outcome.code == 0, outcome.err
        return tmp_path / name

    return run


def column(folder: Path, name: str) -> list[tuple[float, float]]:
    """kimg and value where the figure was logged."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [(float(row["kimg"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())


def load(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def test_few_samples_make_the_curve_and_many_the_final_figures(train: Train) -> None:
    folder = train()
    assert len(column(folder, "val/fid")) == 10
    ((kimg, final),) = column(folder, "final/fid")
    assert kimg == 0.64
    made_by = scores(folder)["made_by"]
    assert scores(folder)["scores"]["fid"] == pytest.approx(final, rel=1e-5)
    assert made_by["generated"]["num_samples"] == 100
    assert made_by["generated"]["weights"] == "ema"
    assert len(made_by["protocol"]) == 8
    assert made_by["protocol"] not in load(folder, "last.ckpt")["ganforge"]["protocols"]


def test_one_number_of_samples_makes_one_evaluation(train: Train) -> None:
    folder = train("metrics.final_num_samples=60")
    assert column(folder, "final/fid") == []
    assert scores(folder)["scores"]["fid"] == pytest.approx(column(folder, "val/fid")[-1][1], rel=1e-5)


@pytest.mark.parametrize(("monitor", "sign"), [("fid", 1), ("coverage", -1), ("precision", -1)])
def test_the_best_k_by_any_figure(monitor: str, sign: int, train: Train) -> None:
    folder = train("callbacks.checkpoint.best_k=3", f"callbacks.checkpoint.monitor={monitor}")
    values = column(folder, f"val/{monitor}")
    ranked = sorted(values, key=lambda pair: (sign * pair[1], pair[0]))
    expected = {f"best_{kimg:010.3f}_kimg.ckpt" for kimg, _ in ranked[:3]}
    found = {path.name for path in (folder / "checkpoints").iterdir()}
    assert found == expected | {"best.ckpt", "last.ckpt"}
    assert load(folder, "best.ckpt")["clock"]["images_seen"] == round(ranked[0][0] * 1000)
    for kimg, value in ranked[:3]:
        state = load(folder, f"best_{kimg:010.3f}_kimg.ckpt")
        assert state["ganforge"]["scores"][monitor] == pytest.approx(value, rel=1e-5)


def test_no_best_at_all(train: Train) -> None:
    folder = train("callbacks.checkpoint.best_k=0")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_target_ends_the_run_with_its_final_figures_and_its_time(train: Train) -> None:
    whole = train(name="whole")
    curve = column(whole, "val/fid")
    target = sorted(value for _, value in curve)[5]
    kimg = next(kimg for kimg, value in curve if value <= target)
    folder = train(f"stop.fid={target + 1e-4}")
    assert [pair[0] for pair in column(folder, "val/fid")][-1] == kimg
    assert column(folder, "final/fid")[-1][0] == kimg
    state = load(folder, "last.ckpt")
    assert state["clock"]["images_seen"] == round(kimg * 1000)
    assert "reached its target" in state["ganforge"]["ended_because"]
    assert state["ganforge"]["seconds"] > 0
    stopped = scores(folder)["stopped"]
    assert stopped["kimg"] == kimg
    assert 0 < stopped["seconds"] <= state["ganforge"]["seconds"]
    assert "reached its target" in stopped["reason"]


def test_a_run_that_ended_early_has_ended_until_it_is_told_otherwise(train: Train, ganforge: Any) -> None:
    folder = train("stop.fid=1000000")
    at = load(folder, "last.ckpt")["clock"]["images_seen"]
    assert at == 64
    again = ganforge("train", f"resume={folder}")
    assert again.code == 0
    assert "has ended" in again.err
    further = ganforge("train", f"resume={folder}", "stop.fid=null")
    assert further.code == 0, further.err
    assert load(folder, "last.ckpt")["clock"]["images_seen"] == 640


def test_lost_patience_ends_the_run(train: Train) -> None:
    # The learning rate is nothing: no evaluation is better than the first.
    still = [f"optimizer.{side}.lr=0.0" for side in ("generator", "discriminator")]
    folder = train(*still, "stop.patience_kimg=0.2", "stop.metric=coverage")
    state = load(folder, "last.ckpt")
    assert 0.256 <= state["clock"]["images_seen"] / 1000 <= 0.32
    assert "has not been better" in state["ganforge"]["ended_because"]


def test_resuming_with_other_metrics_begins_another_curve(train: Train, ganforge: Any) -> None:
    folder = train("total_kimg=0.32")
    best = load(folder, "last.ckpt")["ganforge"]["best"]
    resumed = ganforge("train", f"resume={folder}", "total_kimg=0.64", "metrics.num_samples=80")
    assert resumed.code == 0, resumed.err
    assert "val_2" in resumed.err
    assert [kimg for kimg, _ in column(folder, "val/fid")] == pytest.approx(
        [0.064, 0.128, 0.192, 0.256, 0.32]
    )
    assert [kimg for kimg, _ in column(folder, "val_2/fid")] == pytest.approx(
        [0.384, 0.448, 0.512, 0.576, 0.64]
    )
    state = load(folder, "last.ckpt")["ganforge"]
    assert len(state["protocols"]) == 2
    assert best["kimg"] <= 0.32 < state["best"]["kimg"], "the best of one protocol is not the best of another"


def test_resuming_with_another_extractor(train: Train, ganforge: Any) -> None:
    folder = train("total_kimg=0.064")
    words = ["metrics=domain", "+metrics.extractor.steps=5", "metrics.num_samples=60", "total_kimg=0.128"]
    resumed = ganforge("train", f"resume={folder}", *words)
    assert resumed.code == 0, resumed.err
    assert load(folder, "last.ckpt")["evaluator"]["name"] == "domain"


def test_resuming_as_before_goes_on_with_curve_and_best(train: Train, ganforge: Any) -> None:
    folder = train("total_kimg=0.32", "callbacks.checkpoint.best_k=2")
    whole = train("callbacks.checkpoint.best_k=2", name="whole")
    assert ganforge("train", f"resume={folder}", "total_kimg=0.64").code == 0
    assert column(folder, "val/fid") == column(whole, "val/fid")
    mine, theirs = (load(each, "last.ckpt")["ganforge"] for each in (folder, whole))
    for key in ("scores", "final_scores", "best", "kept", "protocols"):
        assert mine[key] == theirs[key], key
    names = [sorted(path.name for path in (each / "checkpoints").iterdir()) for each in (folder, whole)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("stop.fdi=3", ("stop.fdi", "fid")),
        ("stop.fid=low", ("stop.fid=low", "number")),
        ("stop.patience_kimg=-1", ("patience_kimg=-1",)),
        ("callbacks.checkpoint.monitor=loss", ("monitor=loss", "fid")),
        ("callbacks.checkpoint.best_k=-1", ("best_k=-1",)),
        ("metrics.compute=[fdi]", ("fdi",)),
    ],
)
def test_mistakes_are_refused(word: str, parts: tuple[str, ...], ganforge: Any) -> None:
    ganforge(*SMALL, *([] if word.startswith("metrics.compute") else [FEW]), word).refuses(*parts)
