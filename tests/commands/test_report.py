"""`ganforge report` on real runs, one of which failed, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ganforge as package
from ganforge.runs import RunFolder, find_runs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs, of which the second has a learning rate that cannot be."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["-m", "optimizer.discriminator.lr=1e-3,-1", "total_kimg=0.128", "batch_size=32", "model=mlp"]
    words += ["logger=csv", "metrics.num_samples=50", "metrics.final_num_samples=60", "trainer=cpu"]
    paths = [str(Path(package.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment["GANFORGE_CACHE"] = str(folder / "cache")
    done = subprocess.run(
        [sys.executable, "-m", "ganforge", "train", *words, "hydra.sweep.dir=outputs/digits/sweep"],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 300},
    )
    assert "job 1: optimizer.discriminator: Invalid learning rate: -1" in done.stderr
    return folder / "outputs" / "digits" / "sweep"


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.mark.slow
def test_a_failed_job_of_a_sweep_is_shown_with_its_error(sweep: Path, ganforge: Any, tmp_path: Path) -> None:
    outcome = ganforge("report", str(sweep), "out=pages/report.html")
    assert outcome.code == 0, outcome.err
    assert "2 runs (1 ended, 1 failed)" in outcome.err
    data = data_of(tmp_path / "pages" / "report.html")
    ended, failed = data["runs"]
    assert (failed["state"], failed["reason"]) == (
        "failed",
        "optimizer.discriminator: Invalid learning rate: -1",
    )
    assert failed["settings"]["optimizer.discriminator.lr"] == -1
    assert ended["state"] == "ended"
    assert (ended["final"], ended["kimg"]) == (True, 0.128)
    assert {"fid", "precision"} <= set(ended["scores"])
    assert data["monitor"] == "fid"
    assert data["better"]["fid"] == "lower"
    assert ended["curve_protocols"]["val"] != ended["protocol"], "50 samples and 60"
    assert len(ended["grids"]["samples"]) > 2
    assert data["differing"] == []
    folder = dict(ended["links"])["folder"]
    assert (tmp_path / "pages" / folder).resolve() == (sweep / "0").resolve()


@pytest.mark.slow
def test_a_real_run_says_how_it_ended(sweep: Path) -> None:
    ended, failed = find_runs([sweep])
    assert ended.ending == ("ended", "0.128 kimg")
    assert ended.starts[0]["process"]["pid"] > 0
    assert ended.scores["fid"] == pytest.approx(ended.curves["final/fid"].values[-1], rel=1e-5)
    assert ended.better("precision") == "higher"
    assert failed.asked[0] == "optimizer.discriminator.lr=-1"


def test_a_run_that_failed_in_training_says_so(train: Any, tmp_path: Path) -> None:
    outcome = train(
        "optimizer.discriminator.lr=1e30", "optimizer.generator.lr=1e30", "total_kimg=1", "hydra.run.dir=run"
    )
    assert outcome.code == 1
    state, reason = RunFolder(tmp_path / "run").ending
    assert state == "failed"
    assert "try a lower learning rate" in reason
    end = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["end"]
    assert (end["state"], end["reason"]) == (state, reason)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nowhere",), ("there is no folder nowhere",)),
        ((), ("there is no folder outputs",)),
        ((".",), ("there is no run in .", "config.yaml")),
        (("run", "out=run"), ("out=run is a folder", "out=run/report.html")),
        (("run", "run/config.yaml/x"), ("there is no folder run/config.yaml/x",)),
        (("run", "out=run/config.yaml/report.html"), ("run/config.yaml cannot be made", "out=...")),
        (("run", "--whatch"), ("there is no flag '--whatch'",)),
    ],
)
def test_mistakes_are_one_message(
    words: tuple[str, ...], parts: tuple[str, ...], ganforge: Any, tmp_path: Path, write_run: Any
) -> None:
    if "run" in words:
        write_run(tmp_path / "run")
    ganforge("report", *words).refuses(*parts)


def test_a_port_in_use_is_named(ganforge: Any, tmp_path: Path, write_run: Any) -> None:
    write_run(tmp_path / "run")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ganforge("report", "run", "--watch", f"port={port}").refuses(
            f"port={port}", "port=0 takes any that is free"
        )


def test_folders_with_odd_names(ganforge: Any, tmp_path: Path, write_run: Any) -> None:
    for name in ("a=b,c", "it's {odd} [1]", "ünï 100%#x"):
        write_run(tmp_path / "outputs" / "odd" / name)
    outcome = ganforge(
        "report", "outputs/odd/a=b,c", "outputs/odd/it's {odd} [1]", "outputs/odd/ünï 100%#x", "title=T"
    )
    assert outcome.code == 0, outcome.err
    data = data_of(tmp_path / "report.html")
    assert [run["name"] for run in data["runs"]] == ["odd/a=b,c", "odd/it's {odd} [1]", "odd/ünï 100%#x"]
    assert dict(data["runs"][2]["links"])["folder"] == "./outputs/odd/%C3%BCn%C3%AF%20100%25%23x"
    assert data["title"] == "T"
