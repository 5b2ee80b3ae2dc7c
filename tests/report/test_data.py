"""What the page is told: curves thinned without losing a peak, settings once, pictures that fit."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ganforge.report import data as data_module
from ganforge.report.data import Collector, report_data, thinned
from ganforge.report.importance import importances
from ganforge.report.page import as_json, page
from ganforge.report.pictures import BYTES, Embedded
from ganforge.runs import Curve, Grid, RunFolder, Search, Trial, find_runs


def nothing(run: RunFolder, grids: Any) -> list[list[Any]]:
    return [[grid.kimg, grid.path.name] for grid in grids]


@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=300),
    points=st.integers(4, 60),
)
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values: list[float], points: int) -> None:
    kimg, kept = thinned(Curve(list(range(len(values))), values), points)
    assert len(kept) <= max(points, len(values) if len(values) <= points else 0)
    assert (kimg[0], kimg[-1]) == (0, len(values) - 1)
    assert np.array_equal(kept, np.asarray(values)[kimg.astype(int)], equal_nan=True), "points of the curve"
    if not all(map(math.isnan, values)):
        assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(values), np.nanmax(values))


def test_settings_that_all_runs_share_are_told_once(folder: Path) -> None:
    told = report_data([folder], nothing, str)
    assert told["shared"]["name"] == "digits"
    assert told["differing"][:2] == ["loss", "seed"], "asked for on the command line"
    assert {"optimizer.generator.lr", "comment"} < set(told["differing"])
    for run in told["runs"]:
        assert not set(run["settings"]) & set(told["shared"])
    assert [run["state"] for run in told["runs"]].count("pruned") == 1
    assert told["searches"][0]["trials"][4]["error"] == "loss became nan"


def test_nothing_that_json_does_not_know_gets_out(tmp_path: Path, write_run: Any) -> None:
    write_run(
        tmp_path / "run", fid=(math.nan, math.inf, 3.0), lr=math.inf, settings={"odd": [math.nan, {1: None}]}
    )
    told = json.loads(as_json(report_data([tmp_path], nothing, str)))
    assert told["runs"][0]["curves"]["val/fid"] == [[1.0, 2.0, 3.0], [None, None, 3.0]]


def test_twenty_runs_fit_in_ten_megabytes(tmp_path: Path, write_run: Any) -> None:
    """Of 2,000 log lines and forty noisy grids each, which compress worse than any real one."""
    pytest.importorskip("plotly")
    numbers = random.Random(0)
    rows = ["images_seen,kimg,val/fid," + ",".join(f"train/term_{i}" for i in range(30))]
    for k in range(2000):
        rows.append(f"{k * 100},{k / 10}," + ",".join(f"{numbers.random():.6g}" for _ in range(31)))
    curves = "".join(f"{row}\r\n" for row in rows)
    Image.effect_noise((342, 342), 200).save(tmp_path / "noise.png")
    for i in range(20):
        run = write_run(tmp_path / str(i), seed=i)
        (run / "metrics.csv").write_text(curves)
        (run / "samples").mkdir()
        for k in range(40):
            os.link(tmp_path / "noise.png", run / "samples" / f"{k * 5:010.3f}_kimg.png")
    told = report_data([tmp_path], Embedded(20), str)
    assert len(page(told, "title").encode()) < 10e6
    for run in told["runs"]:
        assert len(run["curves"]["val/fid"][0]) >= 300
        assert len(run["grids"]["samples"]) >= 2
        assert run["grids"]["samples"][0][0] == 0.0
        assert run["grids"]["samples"][-1][0] == 195.0


def test_grids_are_small_and_a_broken_one_is_left_out(tmp_path: Path, write_run: Any) -> None:
    run = RunFolder(write_run(tmp_path / "run", grids=50))
    run.grids["samples"][30].path.write_bytes(b"")
    shown = Embedded(1)(run, run.grids["samples"])
    assert 30 < len(shown) <= 40
    assert sum(len(source) for _, source in shown) < 1.34 * BYTES
    kind, _, text = shown[0][1].partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == (64, 64)
    large = tmp_path / "large.png"
    Image.new("RGB", (2000, 1000)).save(large)
    (_, source) = Embedded(1)(run, [Grid(1.0, large)])[0]
    assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (360, 180)


def test_only_what_changed_is_read_again(
    tmp_path: Path, write_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        write_run(tmp_path / str(i), seed=i)
    collector = Collector(nothing, str)
    first = collector.collect(find_runs([tmp_path]))
    read: list[str] = []
    whole = data_module._points
    monkeypatch.setattr(
        data_module, "_points", lambda curve, points: read.append("x") or whole(curve, points)
    )
    collector.collect(find_runs([tmp_path]))
    assert read == []
    with (tmp_path / "1" / "metrics.csv").open("a") as file:
        file.write("4000,4,0.5,1.5\r\n")
    again = collector.collect(find_runs([tmp_path]))
    assert len(read) == 2, "the two curves of one run"
    assert (first["runs"][1]["kimg"], again["runs"][1]["kimg"]) == (3.0, 4.0)


def test_what_matters_in_a_search() -> None:
    pytest.importorskip("optuna")
    numbers = random.Random(1)
    trials = []
    for i in range(30):
        lr, loss = 10 ** numbers.uniform(-5, -2), numbers.choice(["hinge", "minimax"])
        trials.append(Trial(i, "complete", {"lr": lr, "loss": loss, "same": 1}, [abs(math.log10(lr) + 3)]))
    trials.append(Trial(30, "fail", {"lr": 1.0, "loss": "hinge", "same": 1}, None))
    search = Search(Path(), "s", "TPE", ["fid"], ["minimize"], trials)
    shares = importances(search)
    assert list(shares) == ["lr", "loss"]
    assert shares["lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert importances(Search(Path(), "s", "TPE", ["fid"], ["minimize"], trials[:3])) == {}
