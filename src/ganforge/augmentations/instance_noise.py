"""Instance noise (Sønderby et al. 2017, "Amortised MAP Inference for Image Super-resolution", arXiv:1610.04490)."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws


class InstanceNoise(Augmentation):
    """x + σ(t) · N(0, I), with σ(t) = sigma · max(0, 1 - t / until_kimg) after t thousand images.

    Args:
        sigma: where σ starts, at least 0, on the images' scale of [-1, 1].
        until_kimg: when it reaches 0; None holds it where it is.

    Raises:
        ValueError: a number outside its range.
    """

    needs_images: ClassVar[bool] = False

    def __init__(self, sigma: float = 0.1, until_kimg: float | None = None) -> None:
        super().__init__()
        if not 0 <= sigma < math.inf:
            raise ValueError(f"sigma={sigma} must be a number of at least 0")
        if until_kimg is not None and not until_kimg > 0:
            raise ValueError(f"until_kimg={until_kimg} must be above 0 (null holds sigma where it is)")
        self.sigma, self.until_kimg = sigma, until_kimg

    def sigma_at(self, images_seen: int) -> float:
        left = 1.0 if self.until_kimg is None else max(0.0, 1 - images_seen / (1000 * self.until_kimg))
        return self.sigma * left

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        sigma = self.sigma_at(images_seen)
        if sigma == 0:
            return images
        return images + sigma * draws.normal(*images.shape, device=images.device)
