"""One side of a comparison as the metrics see it: what an extractor made of a set of images, and what else is known."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")

Images = Callable[[Tensor], Tensor]
"""Rows int64 (B,) of the sample -> their images, uint8 (B, C, H, W)."""

_BLOCK = 4096


class Model(Protocol):
    """What made a sample, for the metrics that ask more of it than images.

    Attributes:
        latent_dim: length of z; 0 where images cannot be made from a z.
        num_classes: 0 for an unconditional model.
        device: where it runs.
    """

    latent_dim: int
    num_classes: int
    device: torch.device

    def generate(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float32 (B, latent_dim), labels int64 (B,) -> images float32 (B, C, H, W) in [-1, 1]."""
        ...

    def discriminator_features(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """Images in [-1, 1], labels -> what the discriminator's last layer sees, (B, D); None without one."""
        ...


class Statistics(NamedTuple):
    """Mean (D,) and covariance (D, D) of features."""

    mu: NDArray[Any]
    sigma: NDArray[np.float64]


@dataclass
class Sample:
    """Images of one kind, in an order that every attribute shares.

    Attributes:
        count: how many images.
        features: float32 (n, D) on the CPU, n <= count: of all, or of a subset that fits in a checkpoint; None when
            only statistics are known.
        logits: float32 (n, K) on the CPU; None where the extractor has none.
        labels: int64 (n,): the class of a real image, or the one asked for; None without classes.
        classifies: whether the logits' classes are the labels.
        images: reads images by row; None where they are not at hand.
        num_images: how many rows, from the first, `images` can read.
        held_out: further real images that no generator was trained on.
        model: what made the images; None for real ones and for files.
        known_statistics: mean and covariance over all images where they do not follow from `features`.
    """

    count: int
    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    classifies: bool = False
    images: Images | None = None
    num_images: int = 0
    held_out: Sample | None = None
    model: Model | None = None
    known_statistics: Statistics | None = None
    _memory: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.statistics.mu) if self.features is None else self.features.shape[1]

    @property
    def statistics(self) -> Statistics:
        """Mean and covariance over all images."""
        if self.known_statistics is not None:
            return self.known_statistics
        assert self.features is not None
        features = self.features
        return self.once("statistics", lambda: feature_statistics(features))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, remembered under `key`: a real sample meets many generated ones."""
        if key not in self._memory:
            self._memory[key] = compute()
        value: T = self._memory[key]
        return value

    def remembered(self) -> Iterator[tuple[Hashable, Any]]:
        """What `once` has computed so far, with its keys."""
        yield from self._memory.items()

    def remember(self, values: Mapping[str, Any]) -> None:
        """Take values by the `repr` of their keys, as a checkpoint kept them."""
        self._memory |= {ast.literal_eval(key): value for key, value in values.items()}

    def has(self, name: str) -> bool:
        """Whether the attribute of that name is known."""
        if name == "statistics":
            return self.features is not None or self.known_statistics is not None
        return getattr(self, name) is not None


def feature_statistics(features: Tensor, rows: Tensor | None = None) -> Statistics:
    """Mean and unbiased covariance of float32 (N, D), N >= 2, in blocks: little more memory than the result.

    The mean is numpy's float32 one and the covariance float64, as torch-fidelity has them; of chosen rows both are
    float64.

    Args:
        rows: int64 (n,), n >= 2: those that count; None for all.
    """
    values = features.numpy()
    chosen = None if rows is None else rows.numpy()
    count = len(values) if chosen is None else len(chosen)

    def blocks() -> Iterator[NDArray[np.float64]]:
        for start in range(0, count, _BLOCK):
            part = slice(start, start + _BLOCK)
            yield (values[part] if chosen is None else values[chosen[part]]).astype(np.float64)

    centre = np.zeros(values.shape[1])
    for block in blocks():
        centre += block.sum(axis=0)
    centre /= count
    sigma = np.zeros((len(centre), len(centre)))
    for block in blocks():
        block -= centre
        sigma += block.T @ block
    mu = np.mean(values, axis=0) if chosen is None else centre
    return Statistics(mu, sigma / (count - 1))
