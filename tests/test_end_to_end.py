"""What a user does from one end to the other: train, score, sample, sweep, in processes of their own."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

TINY = ["model=mlp", "total_kimg=0.512", "batch_size=32", "logger.mode=disabled"]


def ganforge(*words: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GANFORGE_CACHE": str(cwd / "cache")}
    result = subprocess.run(
        [sys.executable, "-m", "ganforge", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    ganforge("train", *TINY, "hydra.run.dir=run", cwd=folder)
    return folder / "run"


def test_a_run_leaves_everything_in_its_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    expected = "config.yaml overrides.yaml run.json metrics.csv scores.json samples samples.webp checkpoints"
    assert set(expected.split()) <= names
    assert not (trained / "failure.txt").exists()
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    final = [row for row in rows if row["images_seen"] == "512"]
    assert any(row["val/fid"] for row in final)
    for name in ("adversarial", "gradient_norm", "learning_rate"):
        for side in ("generator", "discriminator"):
            assert any(row[f"train/{side}/{name}"] for row in rows), (side, name)
    for name in ("accuracy_real", "accuracy_fake", "real_logits", "fake_logits"):
        assert all(row[f"train/discriminator/{name}"] for row in rows if not row["val/fid"])
    start = json.loads((trained / "run.json").read_text())["starts"][0]
    assert start["seed"] == 0
    assert start["versions"]["torch"] == torch.__version__.split("+")[0]
    frames = sorted((trained / "samples").glob("*_kimg.png"))
    assert frames[0].name == "000000.000_kimg.png"
    assert frames[-1].name == "000000.512_kimg.png"
    with Image.open(trained / "samples.webp") as animation:
        assert 2 <= animation.n_frames <= len(frames)


def test_evaluate_repeats_the_figures_of_the_end_of_training(trained: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    result = ganforge("evaluate", f"checkpoint={checkpoint}", cwd=trained)
    assert "not comparable with papers" in result.stdout
    written = json.loads((trained / "checkpoints" / "last_digits.json").read_text())
    at_the_end = json.loads((trained / "scores.json").read_text())
    assert written["scores"] == pytest.approx(at_the_end["scores"], rel=1e-6)
    generated = written["made_by"]["generated"]
    assert generated["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert generated["num_samples"] == 1797
    assert written["made_by"]["protocol"] == at_the_end["made_by"]["protocol"]


def test_each_sample_says_where_it_comes_from(trained: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    words = ["sample", f"checkpoint={checkpoint}", "num=6", "labels=[3,5]", "seed=7"]
    ganforge(*words, "out=a", cwd=trained)
    ganforge(*words, "out=b", "batch_size=6", cwd=trained)
    ganforge(*words[:-1], "out=c", cwd=trained)
    for index in range(6):
        with Image.open(trained / "a" / f"{index}.png") as image:
            assert image.size == (8, 8)
            assert image.text["synthetic"] == "true"
            assert image.text["run"] == "run"
            assert image.text["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
            assert image.text["seed"] == "7"
            assert image.text["label"] == str((3, 5)[index % 2])
    pictures = {name: (trained / name / "0.png").read_bytes() for name in "abc"}
    assert pictures["a"] == pictures["b"], "the same seed, the same picture"
    assert pictures["a"] != pictures["c"], "another seed, another picture"
    assert (trained / "a" / "grid.png").exists()


def test_a_checkpoint_is_enough_where_the_data_is_gone(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for label in ("light", "dark"):
        (pictures / label).mkdir(parents=True)
        for index in range(24):
            level = (60 if label == "dark" else 190) + index
            Image.new("L", (8, 8), level).save(pictures / label / f"{index}.png")
    data = ["data=image_folder", "data.root=pictures", "metrics=domain"]
    numbers = ["metrics.num_samples=48", "metrics.final_num_samples=48"]
    ganforge("train", *TINY, *data, *numbers, "hydra.run.dir=run", cwd=tmp_path)
    pictures.rename(tmp_path / "elsewhere")
    (tmp_path / "cache").rename(tmp_path / "cache_elsewhere")
    ganforge("sample", "checkpoint=run", "num=4", "out=fakes", cwd=tmp_path)
    ganforge("evaluate", "checkpoint=run/checkpoints/last.ckpt", cwd=tmp_path)
    again = json.loads((tmp_path / "run" / "checkpoints" / "last_domain.json").read_text())["scores"]
    assert again == pytest.approx(
        json.loads((tmp_path / "run" / "scores.json").read_text())["scores"], rel=1e-6
    )


def test_points_are_drawn_and_written_as_numbers(tmp_path: Path) -> None:
    ganforge("train", *TINY, "data=gaussian_ring", "hydra.run.dir=run", cwd=tmp_path)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["scores"]
    assert 0 <= scores["modes_covered"] <= 8
    ganforge("sample", "checkpoint=run", "num=10", "out=points", cwd=tmp_path)
    points = (tmp_path / "points" / "points.csv").read_text().splitlines()
    assert len(points) == 10
    assert len(points[0].split(",")) == 2
