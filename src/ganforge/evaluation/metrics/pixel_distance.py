"""Sliced Wasserstein distance of patches at every scale: the statistics of pixels, without any trained network.

Karras et al. 2018, "Progressive Growing of GANs", section 5 (arXiv 1710.10196).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ganforge.evaluation.extractor import exact_float32
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.metrics.rows import enough, fixed_rows, images_of
from ganforge.evaluation.sample import Sample

COARSEST_SIDE = 16
LARGEST_PATCH = 7
_PATCH_SEED, _DIRECTION_SEED = 2026, 2027
_READ = 16  # images at a time, few enough for a processor's cache
_CACHED_BYTES = 256 * 2**20

Array = NDArray[np.float32]


class PixelDistance(Metric):
    """`pixel_swd`: 1000 times the sliced Wasserstein distance of patches, averaged over the levels of a pyramid.

    Each image becomes a Laplacian pyramid that is halved as long as the shorter side stays at 16 pixels or more;
    an image below 32 pixels is one level, its own pixels. From each level come patches of 7x7 pixels (of the
    largest odd side within half the level where that is less: 3x3 of an 8x8 image). The patches of a side are
    normalised to mean 0 and standard deviation 1 per channel, by their own statistics, and projected to random unit
    directions; the distance is the mean of |a - b| over the sorted projections a and b. So contrast and brightness of
    a whole set leave it as it is. The coarse levels tell of large structures and the finest one of texture and noise.

    0 for equal sets; lower is better. Both sides give the same number of images. The paper takes 16,384 images, 128
    patches and 512 directions: fewer give a larger value between equal distributions, so figures compare only at
    equal settings, and not with the paper's.

    Args:
        num_images: images of each side at most.
        patches_per_image: patches drawn from each level of an image; the same positions on both sides.
        projections: random directions.

    Raises:
        ValueError: an argument below 1; sides of different shapes; fewer than 2 images.
    """

    generated_needs = ("images",)
    real_needs = ("images",)

    def __init__(self, num_images: int = 2048, patches_per_image: int = 64, projections: int = 128) -> None:
        for name, value in (
            ("num_images", num_images),
            ("patches_per_image", patches_per_image),
            ("projections", projections),
        ):
            if value < 1:
                raise ValueError(f"pixel_swd: {name} is {value}, but has to be at least 1")
        self.num_images = num_images
        self.patches_per_image = patches_per_image
        self.projections = projections

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"pixel_swd": "lower"}

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        count = enough("pixel_swd", min(self.num_images, generated.num_images, real.num_images), 2)
        shapes = [tuple(images_of(side, torch.arange(1)).shape[1:]) for side in (generated, real)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"pixel_swd compares images of one shape, not {shapes[0]} with {shapes[1]}")
        levels = pyramid_sides(*shapes[0][1:])
        bytes_kept = 4 * len(levels) * count * self.patches_per_image * self.projections
        if bytes_kept <= _CACHED_BYTES:
            key = ("pixel_distance", count, self.patches_per_image, self.projections)
            theirs = real.once(key, lambda: self._projected(real, count))
        else:
            theirs = self._projected(real, count)
        ours = self._projected(generated, count)
        distances = [mean_distance(one, other) for one, other in zip(ours, theirs, strict=True)]
        return {"pixel_swd": 1000 * float(np.mean(distances))}

    def _projected(self, sample: Sample, count: int) -> list[Array]:
        """For each level the sorted projections float32 (projections, count * patches_per_image)."""
        with exact_float32(torch.device("cpu")):
            rows = fixed_rows(sample.num_images, count)
            descriptors = patch_descriptors(sample, rows, self.patches_per_image)
        projected = []
        while descriptors:
            level = descriptors.pop(0)  # freed before the next one's projections are made
            projected.append(sorted_projections(normalise_channels(level), self.projections))
        return projected


def pyramid_sides(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of each level, the finest first."""
    sides = [(height, width)]
    while min(sides[-1]) >= 2 * COARSEST_SIDE:
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return sides


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """float32 (B, C, H, W) -> differences of neighbouring Gaussian levels, the finest first, then the last itself.

    Burt and Adelson 1983: a level is blurred by (1, 4, 6, 4, 1)/16 along both axes, mirrored at the border, and
    every second row and column is kept; to be subtracted it is brought back by the same blur.
    """
    levels = [images]
    for _ in pyramid_sides(*images.shape[-2:])[1:]:
        levels.append(_blur(levels[-1])[..., ::2, ::2])
    for fine, coarse in zip(range(len(levels) - 1), levels[1:], strict=True):
        spread = torch.zeros_like(levels[fine])
        spread[..., ::2, ::2] = coarse
        levels[fine] = levels[fine] - 4 * _blur(spread)
    return levels


def _blur(x: Tensor) -> Tensor:
    """By sums of shifted images: ten times as fast on a CPU as a convolution per channel."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for axis in (-2, -1):
        far, near, middle, following, last = (x.narrow(axis, k, x.shape[axis] - 4) for k in range(5))
        x = (6 * middle).add_(near + following, alpha=4).add_(far).add_(last)
    return x.div_(256)


def patch_side(height: int, width: int) -> int:
    """7, or the largest odd number within half the shorter side, at least 1."""
    half = min(height, width) // 2
    return max(1, min(LARGEST_PATCH, half - (half + 1) % 2))


def patch_positions(count: int, sides: tuple[int, int], level: int) -> tuple[Tensor, Tensor]:
    """Top rows and left columns, int64 (count,) each, of patches inside a level; a function of the arguments alone."""
    generator = torch.Generator().manual_seed(_PATCH_SEED + level)
    reach = [side - patch_side(*sides) + 1 for side in sides]
    places = torch.rand(count, 2, dtype=torch.float64, generator=generator)
    return (places[:, 0] * reach[0]).long(), (places[:, 1] * reach[1]).long()


def patch_descriptors(sample: Sample, rows: Tensor, patches_per_image: int) -> list[Array]:
    """For each level, the finest first, the patches of `rows`: float32 (len(rows) * patches_per_image, C, p, p)."""
    _, channels, height, width = images_of(sample, rows[:1]).shape
    sides = pyramid_sides(height, width)
    places = [patch_positions(len(rows) * patches_per_image, side, level) for level, side in enumerate(sides)]
    patches = [patch_side(*side) for side in sides]
    found = [np.empty((len(rows) * patches_per_image, channels, p, p), dtype=np.float32) for p in patches]
    for start in range(0, len(rows), _READ):
        images = images_of(sample, rows[start : start + _READ]).float()
        part = slice(start * patches_per_image, (start + len(images)) * patches_per_image)
        each = torch.arange(len(images)).repeat_interleave(patches_per_image)
        for level, picture in enumerate(laplacian_pyramid(images)):
            windows = picture.unfold(2, patches[level], 1).unfold(3, patches[level], 1)
            top, left = (place[part] for place in places[level])
            found[level][part] = windows[each, :, top, left].numpy()
    return found


def normalise_channels(descriptors: Array) -> Array:
    """(N, C, p, p) in place to mean 0 and standard deviation 1 per channel; a constant channel becomes 0."""
    for channel in range(descriptors.shape[1]):
        values = descriptors[:, channel]
        mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        values -= np.float32(mean)
        # What rounding leaves of a constant is no texture.
        values *= np.float32(1 / deviation if deviation > 1e-4 else 0)
    return descriptors


def sorted_projections(descriptors: Array, projections: int) -> Array:
    """(N, C, p, p) onto fixed random unit directions: float32 (projections, N), each row sorted."""
    flat = descriptors.reshape(len(descriptors), -1)
    generator = torch.Generator().manual_seed(_DIRECTION_SEED)
    directions = torch.randn(projections, flat.shape[1], generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    result: Array = directions.float().numpy() @ flat.T
    result.sort(axis=1)
    return result


def mean_distance(one: Array, other: Array) -> float:
    """Mean |a - b| of two (projections, N) sorted along N, row by row to spare memory."""
    return float(np.mean([np.abs(a - b).mean(dtype=np.float64) for a, b in zip(one, other, strict=True)]))
