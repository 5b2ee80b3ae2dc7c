"""DiffAugment (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", arXiv:2006.10738)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganforge.augmentations.augmentation import Augmentation
from ganforge.augmentations.pixels import translate
from ganforge.draws import Draws

KINDS = ("color", "translation", "cutout")


class DiffAugment(Augmentation):
    """Every image is changed, each time in another way:

    color: brightness + U(-0.5, 0.5), saturation · U(0, 2), contrast · U(0.5, 1.5), about the pixel's and the image's
        mean.
    translation: up to 1/8 of the width in both directions, grey in what is uncovered.
    cutout: a square of half the width is grey, its middle anywhere.

    Args:
        kinds: of the changes to make.

    Raises:
        ValueError: a kind that is not known.
    """

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        super().__init__()
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds=[{', '.join(kinds)}]: {kind} is not one of {', '.join(KINDS)}")
        self.kinds = tuple(kinds)

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        uniform = draws.uniform(len(images), 7, device=images.device)
        if "color" in self.kinds:
            images = _recolored(images, uniform[:, :3])
        if "translation" in self.kinds:
            largest = int(images.shape[-1] / 8 + 0.5)
            images = translate(images, (uniform[:, 3:5] * (2 * largest + 1)).long() - largest)
        if "cutout" in self.kinds:
            images = images * _kept(images.shape[-1], uniform[:, 5:])[:, None]
        return images


def _recolored(images: Tensor, u: Tensor) -> Tensor:
    brightness, saturation, contrast = (each[:, None, None, None] for each in u.unbind(dim=1))
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def _kept(n: int, u: Tensor) -> Tensor:
    """bool (B, N, N): False in a square whose middle is at the share u (B, 2) of the rows and columns."""
    side = int(n / 2 + 0.5)
    index = torch.arange(n, device=u.device)
    start = (u * (n + 1 - side % 2)).long() - side // 2
    cut = (index >= start[:, :, None]) & (index < start[:, :, None] + side)
    return ~(cut[:, 0, :, None] & cut[:, 1, None, :])
