"""Mirrors and small shifts: CR-GAN's augmentation (Zhang et al. 2020, arXiv:1910.12027)."""

from __future__ import annotations

import torch
from torch import Tensor

from ganforge.augmentations.augmentation import Augmentation
from ganforge.augmentations.pixels import blit
from ganforge.draws import Draws


class FlipTranslate(Augmentation):
    """Mirrored left to right with probability 1/2, and shifted by up to `shift` of the width, filled by reflection.

    Args:
        flip: whether images are mirrored; not where left and right mean something, as in letters.
        shift: in [0, 0.5]; 1/8 are the paper's 4 pixels of 32.

    Raises:
        ValueError: a shift outside its range.
    """

    def __init__(self, flip: bool = True, shift: float = 0.125) -> None:
        super().__init__()
        if not 0 <= shift <= 0.5:
            raise ValueError(f"shift={shift}: a share of the width, it must be from 0 to 0.5")
        self.flip, self.shift = flip, shift

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        uniform = draws.uniform(len(images), 3, device=images.device)
        largest = int(images.shape[-1] * self.shift)
        shift = (uniform[:, 1:] * (2 * largest + 1)).long() - largest
        flip = (
            (uniform[:, 0] < 0.5)
            if self.flip
            else torch.zeros(len(images), dtype=torch.bool).to(images.device)
        )
        return blit(images, flip, torch.zeros_like(shift[:, 0]), shift)
