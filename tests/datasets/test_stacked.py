"""Stacked digits: which digits lie in which channel, and what label they make."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from ganforge.datasets.digits import digits
from ganforge.datasets.samples import DataError
from ganforge.datasets.stacked import StackedSamples, stacked_digits, stacked_mnist

ROOT = Path(os.environ.get("GANFORGE_TEST_MNIST", Path(__file__).parents[2] / "data"))


def check(data: StackedSamples) -> None:
    """Every channel is a digit of the parts, and the label is the number that they make, red first."""
    rows = torch.randint(len(data), (20,))
    images = data.batch(rows)
    assert images.dtype == torch.uint8
    assert images.shape[1:] == data.shape
    for image, row in zip(images, rows.tolist(), strict=True):
        assert torch.equal(image, data[row])
        picks = data.picks[row]
        for channel, pick in zip(image, picks, strict=True):
            assert torch.equal(channel, data.parts.data[pick, 0])
        number = "".join(str(int(data.parts.labels[pick])) for pick in picks)
        assert int(data.labels[row]) == int(number)
        assert data.class_names[int(number)] == number


def test_three_digits_make_a_picture_and_a_number() -> None:
    data = stacked_digits(size=random.randrange(100, 1000), seed=random.randrange(2**31))
    assert (data.shape, data.num_classes, data.image_size, data.in_memory) == ((3, 8, 8), 1000, 8, True)
    check(data)


def test_stacking_follows_from_the_seed() -> None:
    first, again, other = (stacked_digits(size=300, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.picks, again.picks)
    assert first.fingerprint() == again.fingerprint()
    assert (
        len({first.fingerprint(), other.fingerprint(), stacked_digits(size=299, seed=5).fingerprint()}) == 3
    )


def test_all_modes_are_there_and_about_even() -> None:
    data = stacked_digits()
    counts = data.labels.bincount(minlength=1000)
    assert counts.min() > 20
    assert counts.max() < 100
    picked = data.picks.flatten().bincount(minlength=1797)
    assert picked.min() > 0


def test_labels_and_size_are_as_asked() -> None:
    data = stacked_digits(size=10, num_classes=0, image_size=16)
    assert (data.num_classes, data.class_names, data.shape) == (0, [], (3, 16, 16))
    assert data.labels.eq(0).all()
    assert torch.equal(data.parts.data, digits(16).data)
    assert stacked_digits(size=10).fingerprint() != data.fingerprint()


@pytest.mark.parametrize("fact", [{"size": 0}, {"channels": 1}, {"num_classes": 10}])
def test_refuses(fact: dict[str, int]) -> None:
    (key, value), *_ = fact.items()
    with pytest.raises(DataError, match=f"data.{key}={value}"):
        stacked_digits(**fact)  # type: ignore[arg-type]


@pytest.mark.skipif(
    not (ROOT / "MNIST" / "raw").is_dir(),
    reason=f"MNIST is not in {ROOT}; GANFORGE_TEST_MNIST=FOLDER says where it is",
)
def test_stacked_mnist() -> None:
    data = stacked_mnist(ROOT, size=2000, image_size=32, resize="pad")
    assert (data.shape, len(data), data.split, len(data.parts)) == ((3, 32, 32), 2000, "train", 60_000)
    check(data)
