"""Data and models that do not fit, and metrics that cannot be had: refused in one message, before training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six 8x8 pictures without classes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _nothing_starts(tmp_path: Path) -> Any:
    yield
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("config.yaml"))


def test_labels_that_are_not_there(train: Any, pictures: Path) -> None:
    train("data=gaussian_grid", "conditional=true").refuses("conditional=true", "gaussian_grid")
    train("data=image_folder", f"data.root={pictures}", "conditional=true").refuses("pictures", "sub-folder")


def test_a_size_that_the_model_cannot_make(train: Any) -> None:
    train("model=sngan").refuses("sngan", "image_size=8", "32, 48, 64, 128", "model=mlp")
    train("model=dcgan", "data.image_size=24").refuses("dcgan", "image_size=24", "16, 32, 64", "model=mlp")


def test_vectors_for_a_model_of_images(train: Any) -> None:
    train("data=gaussian_grid", "model=dcgan").refuses("dcgan", "vectors", "model=mlp")


def test_a_number_of_classes_that_the_data_do_not_have(train: Any) -> None:
    train("data=gaussian_grid", "data.num_classes=7").refuses("data.num_classes=7", "data.num_classes=25")


def test_a_folder_that_is_missing_or_empty(train: Any, tmp_path: Path) -> None:
    train("data=image_folder").refuses("data.root=PATH")
    train("data=image_folder", "data.root=nowhere").refuses("data.root=nowhere", "does not exist")
    (tmp_path / "empty").mkdir()
    train("data=image_folder", "data.root=empty").refuses("data.root=empty", "no files", ".png")


def test_a_damaged_picture(train: Any, pictures: Path) -> None:
    (pictures / "3.png").write_bytes(os.urandom(300))
    train("data=image_folder", f"data.root={pictures}").refuses("3.png", "data.on_corrupt=skip")


def test_metrics_that_need_labels(train: Any, pictures: Path) -> None:
    train("data=image_folder", f"data.root={pictures}", "metrics=domain").refuses(
        "metrics=domain", "pictures has 0 classes", "metrics=none"
    )


def test_metrics_that_need_the_network(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    train("metrics=inception").refuses(
        "Inception's weights", "metrics.extractor.weights_path=FILE", "metrics=digits"
    )
    missing = f"metrics.extractor.weights_path={tmp_path / 'missing.pth'}"
    train("metrics=inception", missing).refuses("missing.pth", "metrics=digits")


def test_held_out_images_of_another_kind(train: Any, pictures: Path, tmp_path: Path) -> None:
    train("held_out=nowhere").refuses("held_out=nowhere", "does not exist")
    train("held_out=test").refuses("held_out=test", "digits", "no test part")
    train(f"held_out={pictures}").refuses("held_out=", "no classes", "10 classes", "conditional=false")
    np.save(tmp_path / "other.npy", np.zeros((4, 16, 16, 1), dtype=np.uint8))
    train("held_out=other.npy").refuses("held_out=other.npy", "1x16x16", "1x8x8")
