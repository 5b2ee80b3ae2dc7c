"""Which images of a sample a metric reads: all, or a fixed random subset of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ganforge.evaluation.sample import Sample

_SEED = 2026


def fixed_rows(available: int, wanted: int) -> Tensor:
    """int64 (min(available, wanted),) of 0..available-1 in rising order; random, as files often come class by class."""
    if available <= wanted:
        return torch.arange(available)
    order = torch.randperm(available, generator=torch.Generator().manual_seed(_SEED))
    return order[:wanted].sort().values


def readable(sample: Sample, *, labelled: bool = False) -> int:
    """How many images, from the first, can be read; with `labelled` only as far as labels go too."""
    if not labelled:
        return sample.num_images
    assert sample.labels is not None
    return min(sample.num_images, len(sample.labels))


def enough(figure: str, count: int, fewest: int) -> int:
    """`count` itself.

    Raises:
        ValueError: `count` images are fewer than `fewest`.
    """
    if count < fewest:
        raise ValueError(
            f"{figure} needs at least {fewest} images that can be read of each side, not {count}"
        )
    return count


def images_of(sample: Sample, rows: Tensor) -> Tensor:
    """uint8 (B, C, H, W) on the CPU."""
    assert sample.images is not None
    return sample.images(rows).cpu()
