"""Progressive growing (Karras et al. 2018, arXiv:1710.10196, section 2): networks whose levels come one by one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def growth(images_seen: int, stable_kimg: float, fade_kimg: float, levels: int) -> float:
    """How many levels beyond 4x4 there are, in [0, levels]; a fraction is the share of one that is fading in.

    >>> [growth(n, 800, 800, 3) for n in (0, 800_000, 1_200_000, 1_600_000, 9_999_999)]
    [0.0, 0.0, 0.5, 1.0, 3.0]
    """
    kimg = images_seen / 1000
    period = stable_kimg + fade_kimg
    complete = math.floor(kimg / period) if period > 0 else levels
    if complete >= levels:
        return float(levels)
    fading = kimg - complete * period - stable_kimg
    return complete + max(0.0, fading / fade_kimg if fade_kimg > 0 else float(fading >= 0))


class Growing(nn.Module):
    """A network of levels that doubles what it sees or makes from 4x4 on; complete until it is first told the time.

    The number of images seen is all of its state: weights of levels to come are there from the start, and get no
    gradient. In training mode images are as large as the last level that has begun; in evaluation mode they have the
    final size, whatever the level.

    Args:
        levels: that double the size.
        stable_kimg: thousands of images between the end of one level's fading in and the start of the next one's.
        fade_kimg: thousands of images in which a level fades in.
    """

    images_seen: Tensor
    alpha: Tensor

    def __init__(self, levels: int, stable_kimg: float, fade_kimg: float) -> None:
        super().__init__()
        self.levels = levels
        self.stable_kimg, self.fade_kimg = stable_kimg, fade_kimg
        self.register_buffer("images_seen", torch.tensor(-1))
        self.register_buffer("alpha", torch.ones(()), persistent=False)
        self._told: int | None = None
        self._level, self._fading = levels, False

    def grow(self, images_seen: int) -> None:
        """Takes the size that it has after so many images."""
        if images_seen == self._told:
            return  # `alpha` may be part of a graph that is yet to be differentiated
        self._told = images_seen
        self.images_seen.fill_(images_seen)
        self._level, alpha = self._stage_at(images_seen)
        self._fading = alpha < 1
        self.alpha.fill_(alpha)  # a tensor, so that the compiler sees no new number each round

    def size_at(self, images_seen: int) -> float:
        """How many levels beyond 4x4 there are then: see `growth`."""
        return growth(images_seen, self.stable_kimg, self.fade_kimg, self.levels)

    def stage(self) -> tuple[int, Tensor | None]:
        """The last level that has begun, and its share while it fades in."""
        if self.training:
            return self._level, self.alpha if self._fading else None
        # An average of weights is never told the time; the number of images is copied to it as part of the state.
        level, alpha = self._stage_at(int(self.images_seen))
        return level, self.alpha.new_tensor(alpha) if alpha < 1 else None

    def _stage_at(self, images_seen: int) -> tuple[int, float]:
        if images_seen < 0:
            return self.levels, 1.0
        grown = self.size_at(images_seen)
        level = math.ceil(grown)
        return level, 1.0 - (level - grown)

    def pooled(self, images: Tensor, level: int) -> Tensor:
        """Images of any size (B, C, H, W) -> of the level's size."""
        factor = images.shape[-1] // (4 << level)
        return F.avg_pool2d(images, factor) if factor > 1 else images

    def shrunk(self, images: Tensor) -> Tensor:
        """Images of the final size -> as a generator at this stage would make them, half of the detail still fading."""
        level, alpha = self.stage()
        images = self.pooled(images, level)
        if alpha is None:
            return images
        return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0).lerp(images, alpha.to(images.dtype))
