"""R3GAN's networks (Huang et al. 2024, arXiv:2501.05441, configuration E): grouped residual blocks, nothing normalized.

Each level has two inverted bottlenecks of a grouped 3x3 convolution between 1x1 ones, with leaky ReLU; linear
resampling joins levels. Fix-up initialization (Zhang et al. 2019, arXiv:1901.09321) takes the norms' place.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.heads.head import Finish, Head, MakeHead, plain
from ganforge.networks.image_size import level_widths
from ganforge.networks.layers.resampling import Filter

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)

# 96 channels at 256x256, doubled per level, up to `max_width` (768 in all of CIFAR-10's and FFHQ-256's lower levels).
widths_of_levels = functools.partial(level_widths, features=24576, network="r3gan")

BLOCKS = 2  # of a level
EXPANSION = 2  # times as many channels inside of a block
TAPS = (1, 2, 1)
GAIN = math.sqrt(2 / (1 + 0.2**2))  # of He et al. 2015 for leaky ReLU


def scaled(layer: Layer, gain: float = 1.0) -> Layer:
    """Weights of N(0, gain² / inputs of an output), biases of 0."""
    inputs = layer.embedding_dim if isinstance(layer, nn.Embedding) else layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)
    return layer


class ResidualBlock(nn.Module):
    """x + 1x1(act(grouped 3x3(act(1x1(x))))), the identity at first.

    Args:
        blocks: of the whole network, L: the first two convolutions start L^(-1/4) times as large, the last one at 0.
        group_width: channels of a group of the 3x3 convolution.

    Raises:
        ValueError: `group_width` is below 1.
    """

    def __init__(self, channels: int, blocks: int, group_width: int = 16) -> None:
        super().__init__()
        if group_width < 1:
            raise ValueError(f"group_width={group_width} of r3gan must be at least 1")
        hidden = channels * EXPANSION
        groups = math.gcd(hidden, max(1, hidden // group_width))
        gain = GAIN * blocks ** (-1 / 4)
        self.expand = scaled(nn.Conv2d(channels, hidden, 1), gain)
        self.conv = scaled(nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups), gain)
        self.reduce = scaled(nn.Conv2d(hidden, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, H, W) -> the same."""
        h = F.leaky_relu(self.expand(x), 0.2, inplace=True)
        h = F.leaky_relu(self.conv(h), 0.2, inplace=True)
        branch: Tensor = self.reduce(h)
        return x + branch


class Resize(nn.Module):
    """Twice or half of the size, with a 1x1 convolution at the smaller one where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.filter = Filter(TAPS)
        self.conv: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.conv = scaled(nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.filter.upsample(self.conv(x))
        resized: Tensor = self.conv(self.filter.downsample(x))
        return resized


class Generator(nn.Module):
    """z, joined to an embedding of the label -> factors of a learned 4x4 map -> levels -> 1x1 to the image.

    Images have no tanh: they are bounded by [-1, 1] in evaluation mode alone.

    Args:
        width: channels at the image's own level, doubled from level to level down to 4x4; None for the paper's (96 at
            256x256, 768 at 32x32).
        max_width: most channels of a level.
        group_width: channels of a group of the 3x3 convolutions. For ImageNet the paper has 1536, 1536 and 32.

    Raises:
        ValueError: `image_size` is None or unsupported, or `group_width` below 1.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        max_width: int = 768,
        group_width: int = 16,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        widths = list(widths_of_levels(image_size, width, max_width).values())
        self.embedding = scaled(nn.Embedding(num_classes, latent_dim)) if num_classes else None
        self.linear = scaled(nn.Linear(latent_dim * (2 if num_classes else 1), widths[0], bias=False))
        self.start = nn.Parameter(torch.randn(widths[0], 4, 4))
        make = functools.partial(ResidualBlock, blocks=BLOCKS * len(widths), group_width=group_width)
        layers: list[nn.Module] = [make(widths[0]) for _ in range(BLOCKS)]
        for before, after in pairwise(widths):
            layers += [Resize(before, after, up=True), *(make(after) for _ in range(BLOCKS))]
        self.layers = nn.Sequential(*layers, scaled(nn.Conv2d(widths[-1], channels, 1, bias=False)))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W)."""
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], dim=1)
        images: Tensor = self.layers(self.linear(z)[:, :, None, None] * self.start)
        return images if self.training else images.clamp(-1, 1)


class LabelProduct(Head):
    """logit = e(y) · (W h) with features h and an embedding e of the label (appendix D); without classes w · h."""

    def __init__(self, features: int, num_classes: int, finish: Finish = plain) -> None:
        super().__init__(features, num_classes, finish)
        self.linear = finish(nn.Linear(features, features if num_classes else 1, bias=False))
        self.label_embedding = finish(nn.Embedding(num_classes, features)) if num_classes else None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        projected: Tensor = self.linear(features)
        if self.label_embedding is None:
            return projected.squeeze(1)
        logits: Tensor = (self.label_embedding(labels) * projected).sum(dim=1)
        return logits


class Discriminator(nn.Module):
    """1x1 from the image -> levels down to 4x4 -> a 4x4 filter of each channel -> a head: by default `LabelProduct`.

    Args:
        width, max_width, group_width: as in the generator.

    Raises:
        ValueError: `image_size` is None or unsupported, or `group_width` below 1.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        max_width: int = 768,
        group_width: int = 16,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        widths = list(widths_of_levels(image_size, width, max_width).values())[::-1]
        make = functools.partial(ResidualBlock, blocks=BLOCKS * len(widths), group_width=group_width)
        layers: list[nn.Module] = [scaled(nn.Conv2d(channels, widths[0], 1, bias=False))]
        for before, after in pairwise(widths):
            layers += [*(make(before) for _ in range(BLOCKS)), Resize(before, after, up=False)]
        layers += [make(widths[-1]) for _ in range(BLOCKS)]
        last = scaled(nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False))
        self.layers = nn.Sequential(*layers, last, nn.Flatten())
        self.head = (head or LabelProduct)(widths[-1], num_classes, scaled)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        features: Tensor = self.layers(images)
        return features

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
