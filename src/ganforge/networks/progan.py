"""ProGAN (Karras et al. 2018, arXiv:1710.10196, table 2): convolutions level by level, faded in during training."""

from __future__ import annotations

import functools
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import level_widths
from ganforge.networks.layers.activation import activate, normalize
from ganforge.networks.layers.equalized import EqualizedConv2d, EqualizedEmbedding, EqualizedLinear, equalized
from ganforge.networks.layers.growing import Growing
from ganforge.networks.layers.minibatch_deviation import MinibatchDeviation

# 16 channels at 1024x1024, doubled per level, 512 from 32x32 down.
widths_of_levels = functools.partial(level_widths, features=16384, network="progan")


class UpBlock(nn.Module):
    """Twice the size, to the nearest, then two 3x3 convolutions, each with its features' lengths normalized."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, 2H, 2W)."""
        x = normalize(activate(self.conv1(F.interpolate(x, scale_factor=2.0))))
        return normalize(activate(self.conv2(x)))


class Generator(Growing):
    """z, joined to an embedding of the label -> 4x4 -> a block a level -> 1x1 convolution to the image.

    Images have no tanh: they are bounded by [-1, 1] in evaluation mode alone.

    Args:
        width: channels at the image's own level, doubled from level to level down to 4x4; None for the paper's.
        max_width: most channels of a level.
        stable_kimg, fade_kimg: see `Growing`; the paper's 800.

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        max_width: int = 512,
        stable_kimg: float = 800.0,
        fade_kimg: float = 800.0,
    ) -> None:
        widths = list(widths_of_levels(image_size, width, max_width).values())
        super().__init__(len(widths) - 1, stable_kimg, fade_kimg)
        self.latent_dim = latent_dim
        self.embedding = EqualizedEmbedding(num_classes, latent_dim) if num_classes else None
        self.linear = EqualizedLinear(latent_dim * (2 if num_classes else 1), widths[0] * 4 * 4)
        self.conv = EqualizedConv2d(widths[0], widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(UpBlock(before, after) for before, after in pairwise(widths))
        self.to_image = nn.ModuleList(EqualizedConv2d(wide, channels, 1) for wide in widths)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W)."""
        level, alpha = self.stage()
        x = normalize(z)
        if self.embedding is not None:
            x = torch.cat([x, normalize(self.embedding(labels))], dim=1)
        x = normalize(activate(self.linear(x).unflatten(1, (-1, 4, 4))))
        x = before = normalize(activate(self.conv(x)))
        for block in self.blocks[:level]:
            before, x = x, block(x)
        images: Tensor = self.to_image[level](x)
        if alpha is not None:
            smaller = F.interpolate(self.to_image[level - 1](before), scale_factor=2.0)
            images = smaller.lerp(images, alpha.to(images.dtype))
        if self.training:
            return images
        if level < self.levels:
            images = F.interpolate(images, scale_factor=2.0 ** (self.levels - level))
        return images.clamp(-1, 1)


class DownBlock(nn.Module):
    """Two 3x3 convolutions, then half of the size by averaging."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, in_channels, 3, padding=1)
        self.conv2 = EqualizedConv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, H/2, W/2)."""
        return F.avg_pool2d(activate(self.conv2(activate(self.conv1(x)))), 2)


class Discriminator(Growing):
    """The generator's mirror image down to 4x4, minibatch standard deviation, then a head: by default a projection.

    Args:
        width, max_width, stable_kimg, fade_kimg: as in the generator.
        group_size: images of a group of the minibatch standard deviation.

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        max_width: int = 512,
        stable_kimg: float = 800.0,
        fade_kimg: float = 800.0,
        group_size: int = 4,
        head: MakeHead | None = None,
    ) -> None:
        widths = list(widths_of_levels(image_size, width, max_width).values())
        super().__init__(len(widths) - 1, stable_kimg, fade_kimg)
        self.from_image = nn.ModuleList(EqualizedConv2d(channels, wide, 1) for wide in widths)
        self.blocks = nn.ModuleList(DownBlock(after, before) for before, after in pairwise(widths))
        self.deviation = MinibatchDeviation(group_size)
        self.conv = EqualizedConv2d(widths[0] + 1, widths[0], 3, padding=1)
        self.linear = EqualizedLinear(widths[0] * 4 * 4, widths[0])
        self.head = (head or Projection)(widths[0], num_classes, equalized)

    @property
    def names_in_order(self) -> list[str]:
        """Its parts from the largest images to the logits, which is not how they are numbered."""
        levels = [name for n in range(self.levels, 0, -1) for name in (f"from_image.{n}", f"blocks.{n - 1}")]
        return [*levels, "from_image.0", "conv", "linear", "head"]

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W), of the final size or of the stage's -> what the head sees, (B, D)."""
        level, alpha = self.stage()
        images = self.pooled(images, level)
        x = activate(self.from_image[level](images))
        for index in range(level - 1, -1, -1):
            x = self.blocks[index](x)
            if alpha is not None and index == level - 1:
                smaller = activate(self.from_image[index](F.avg_pool2d(images, 2)))
                x = smaller.lerp(x, alpha.to(x.dtype))
        x = activate(self.conv(self.deviation(x)))
        return activate(self.linear(x.flatten(1)))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
