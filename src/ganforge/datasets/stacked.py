"""Stacked digits: three random digits as the channels of one picture, 1,000 modes that can be counted.

Metz et al. 2017 (arXiv:1611.02163), VEEGAN (arXiv:1705.07761), PacGAN (arXiv:1712.04086).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ganforge.datasets.digits import digits
from ganforge.datasets.samples import DataError, Samples, TensorSamples, check_fact, check_num_classes
from ganforge.datasets.standard import Resize, Split, mnist

CHANNELS = 3


class StackedSamples(Samples):
    """Pictures whose channels are grey pictures of `parts`, put together when they are asked for.

    Their label is the number that the digits make, red first: those of 4, 0 and 7 have the label 407.

    Attributes:
        parts: the grey pictures with their labels.
        picks: int64 (N, 3), rows of `parts`, each drawn evenly from all of them: a function of `seed` alone.
    """

    def __init__(
        self,
        name: str,
        parts: TensorSamples,
        size: int,
        seed: int,
        channels: int | None,
        num_classes: int | None,
    ) -> None:
        check_fact("channels", channels, CHANNELS, name)
        if size < 1:
            raise DataError(f"data.size={size} leaves {name} without pictures: it must be at least 1")
        each = parts.num_classes
        labelled = check_num_classes(num_classes, each**CHANNELS, name)
        self.parts = parts
        self.picks = torch.randint(
            len(parts), (size, CHANNELS), generator=torch.Generator().manual_seed(seed)
        )
        places = each ** torch.arange(CHANNELS - 1, -1, -1)
        labels = (parts.labels[self.picks] * places).sum(dim=1)
        super().__init__(
            name=name,
            shape=(CHANNELS, *parts.shape[1:]),
            labels=labels if labelled else torch.zeros(size, dtype=torch.int64),
            class_names=[f"{k:0{CHANNELS}}" for k in range(each**CHANNELS)] if labelled else [],
            num_classes=each**CHANNELS if labelled else 0,
            in_memory=True,
            flip=False,
        )
        self.split = parts.split

    def __getitem__(self, index: int) -> Tensor:
        return self.parts.data[self.picks[index], 0]

    def batch(self, indices: Tensor) -> Tensor:
        return self.parts.data[self.picks[indices], 0]

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.parts.fingerprint()} {self.num_classes}".encode())
        digest.update(self.picks.numpy().data)
        return digest.hexdigest()


def stacked_mnist(
    root: str | Path | None,
    split: Split = "train",
    size: int = 50_000,
    seed: int = 0,
    image_size: int | None = 28,
    channels: int | None = 3,
    num_classes: int | None = 1000,
    resize: Resize = "lanczos",
) -> StackedSamples:
    """`size` pictures of three digits of MNIST each; `num_classes` 0 leaves the labels out."""
    parts = mnist(root, split, image_size=image_size, resize=resize)
    return StackedSamples("stacked_mnist", parts, size, seed, channels, num_classes)


def stacked_digits(
    size: int = 50_000,
    seed: int = 0,
    image_size: int | None = 8,
    channels: int | None = 3,
    num_classes: int | None = 1000,
) -> StackedSamples:
    """`size` pictures of three of scikit-learn's 1,797 digits each; `num_classes` 0 leaves the labels out."""
    return StackedSamples("stacked_digits", digits(image_size), size, seed, channels, num_classes)
