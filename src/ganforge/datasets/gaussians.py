"""Mixtures of Gaussians in the plane, the field's test for dropped modes (VEEGAN, Srivastava et al. 2017,
arXiv:1705.07761; PacGAN, Lin et al. 2018, arXiv:1712.04086)."""

import math

import torch
from torch import Tensor

from ganforge.datasets.samples import DataError, TensorSamples, check_fact, check_num_classes


class GaussianMixture(TensorSamples):
    """Equally likely round Gaussians in the plane: `size` points drawn once, from `seed`, float32 (N, 2).

    Attributes:
        centres: float32 (K, 2), the modes.
        std: the standard deviation of each coordinate about its mode. The papers call a sample good
            when it is within three of them of a mode, and a mode found when it has a good sample.
    """

    def __init__(
        self,
        name: str,
        centres: Tensor,
        std: float,
        size: int,
        seed: int,
        num_classes: int | None,
        channels: int | None,
    ) -> None:
        check_fact("channels", channels, 2, name)
        if size < 1:
            raise DataError(f"data.size={size} leaves {name} without points: it must be at least 1")
        if std < 0:
            raise DataError(f"data.std={std} is no standard deviation: it must not be negative")
        labelled = check_num_classes(num_classes, len(centres), name)
        randomness = torch.Generator().manual_seed(seed)
        modes = torch.randint(len(centres), (size,), generator=randomness)
        points = centres[modes] + std * torch.randn(size, 2, generator=randomness)
        super().__init__(
            name,
            points,
            labels=modes if labelled else None,
            class_names=[f"({x:.2f}, {y:.2f})" for x, y in centres.tolist()] if labelled else [],
        )
        self.centres = centres
        self.std = std


def gaussian_ring(
    modes: int = 8,
    radius: float = 1.0,
    std: float = 0.01,
    size: int = 100_000,
    seed: int = 0,
    image_size: None = None,
    channels: int | None = 2,
    num_classes: int | None = 0,
) -> GaussianMixture:
    """Modes evenly spaced on a circle: mode k at radius (cos 2 pi k / K, sin 2 pi k / K).

    The papers' 2D-ring: 8 modes, radius 1, std 0.01. With `num_classes` equal to `modes` the labels
    are the modes.
    """
    _no_image_size("gaussian_ring", image_size)
    if modes < 1:
        raise DataError(f"data.modes={modes} leaves gaussian_ring empty: it must be at least 1")
    angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    centres = radius * torch.stack([angles.cos(), angles.sin()], dim=1).to(torch.float32)
    return GaussianMixture("gaussian_ring", centres, std, size, seed, num_classes, channels)


def gaussian_grid(
    side: int = 5,
    spacing: float = 2.0,
    std: float = 0.05,
    size: int = 100_000,
    seed: int = 0,
    image_size: None = None,
    channels: int | None = 2,
    num_classes: int | None = 0,
) -> GaussianMixture:
    """Modes on a square grid about the origin, row by row.

    The papers' 2D-grid: 25 modes at {-4, -2, 0, 2, 4}^2, std 0.05. With `num_classes` equal to the number of
    modes the labels are the modes.
    """
    _no_image_size("gaussian_grid", image_size)
    if side < 1:
        raise DataError(f"data.side={side} leaves gaussian_grid empty: it must be at least 1")
    ticks = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) * spacing
    return GaussianMixture(
        "gaussian_grid", torch.cartesian_prod(ticks, ticks), std, size, seed, num_classes, channels
    )


def _no_image_size(name: str, image_size: int | None) -> None:
    if image_size is not None:
        raise DataError(
            f"data.image_size={image_size} does not fit {name}, which holds points: leave it null"
        )
