"""The benchmarks' files are read as they are published; absence and damage are said plainly."""

import gzip
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from ganforge.datasets import standard
from ganforge.datasets.samples import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write_idx(path: Path, values: torch.Tensor) -> None:
    content = b"\0\0\x08" + bytes([values.dim()]) + struct.pack(f">{values.dim()}i", *values.shape)
    content += values.numpy().tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def small_mnist(tmp_path):
    """A folder as torchvision lays it out: training files gzipped, test files unpacked."""
    for split, suffix, count in (("train", ".gz", 12), ("t10k", "", 5)):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        write_idx(tmp_path / f"MNIST/raw/{split}-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"MNIST/raw/{split}-labels-idx1-ubyte{suffix}", torch.arange(count).byte() % 10)
    return tmp_path


def test_splits_and_padding(small_mnist):
    train, test = standard.mnist(small_mnist), standard.mnist(small_mnist, split="test")
    assert (len(train), len(test), train.shape, train.num_classes) == (12, 5, (1, 28, 28), 10)
    assert train.labels.tolist() == [*range(10), 0, 1]
    padded = standard.mnist(small_mnist, image_size=32, resize="pad")
    assert padded.shape == (1, 32, 32)
    assert torch.equal(padded.data[:, :, 2:30, 2:30], train.data)
    assert padded.data.sum() == train.data.sum()
    assert standard.mnist(small_mnist, image_size=16).shape == (1, 16, 16)
    unlabelled = standard.mnist(small_mnist, num_classes=0)
    assert (unlabelled.num_classes, unlabelled.class_names) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 16, "resize": "pad"}, "data.image_size=16 is below mnist's 28"),
        ({"image_size": 0}, "data.image_size=0"),
        ({"resize": "crop"}, "data.resize=crop"),
        ({"split": "valid"}, "data.split=valid"),
        ({"channels": 3}, "data.channels=3 does not fit mnist, which has 1"),
        ({"num_classes": 7}, "data.num_classes=7 does not fit mnist, which has 10"),
        ({"root": None}, "data.root=PATH is needed"),
    ],
)
def test_refuses(small_mnist, arguments, message):
    with pytest.raises(DataError, match=message):
        standard.mnist(**{"root": small_mnist, **arguments})


@pytest.mark.parametrize("keep", [0, 3, 9, 100])
def test_damaged_files_are_named(small_mnist, keep):
    for name in ("t10k-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        path = small_mnist / "MNIST/raw" / name
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            standard.mnist(small_mnist, split="train" if name.startswith("train") else "test")


@pytest.mark.parametrize("build", [standard.mnist, standard.fashion_mnist, standard.kmnist, standard.cifar10])
def test_a_failed_download_names_the_root_and_the_way_out(tmp_path, monkeypatch, build):
    def unreachable(self):
        raise OSError("no route\n to the mirror")

    monkeypatch.setattr(MNIST, "download", unreachable)
    monkeypatch.setattr(CIFAR10, "download", unreachable)
    patience = socket.getdefaulttimeout()
    with pytest.raises(
        DataError, match=r"no route to the mirror.*put it there, or take data=digits"
    ) as raised:
        build(tmp_path / "new")
    assert f"data.root={tmp_path / 'new'}" in str(raised.value)
    assert socket.getdefaulttimeout() == patience


def test_cifar_keeps_channels_first(tmp_path, monkeypatch):
    """Files in CIFAR's own layout; only their check-sums are waived."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng().integers(256, size=(3, 3072), dtype=np.uint8)
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": pixels, "labels": [2, 0, 9]}))
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels[:1], "labels": [1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    data = standard.cifar10(tmp_path)
    assert (data.shape, data.num_classes, data.flip) == ((3, 32, 32), 10, True)
    assert torch.equal(data.data, torch.from_numpy(pixels).view(3, 3, 32, 32))
    assert data.labels.tolist() == [2, 0, 9]
    assert data.class_names == list("abcdefghij")
    assert len(standard.cifar10(tmp_path, split="test")) == 1


def test_real_mnist():
    if not (SHARED / "mnist").is_dir():
        pytest.skip(f"no MNIST at {SHARED / 'mnist'}")
    data = standard.mnist(SHARED / "mnist", split="test")
    assert len(data) == 10_000
    assert torch.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert 30 < data.data.float().mean() < 36  # the test set's mean level is 33.8
