"""Instance noise (Sønderby et al. 2017, "Amortised MAP Inference for Image Super-resolution", arXiv:1610.04490)."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.schedules import Value, ends, value_at


class InstanceNoise(Augmentation):
    """x + σ · N(0, I).

    Args:
        sigma: σ, at least 0, on the images' scale of [-1, 1], or a schedule of it: the paper's noise goes down to 0.

    Raises:
        ValueError: a number outside its range.
    """

    needs_images: ClassVar[bool] = False

    def __init__(self, sigma: Value = 0.1) -> None:
        super().__init__()
        if not all(0 <= end < math.inf for end in ends(sigma)):
            raise ValueError(f"sigma={sigma} must be a number of at least 0")
        self.sigma = sigma

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        sigma = value_at(self.sigma, images_seen / 1000)
        if sigma == 0:
            return images
        return images + sigma * draws.normal(*images.shape, device=images.device)
