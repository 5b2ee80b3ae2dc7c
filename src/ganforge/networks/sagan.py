"""SAGAN (Zhang et al. 2019, arXiv:1805.08318): residual networks with self-attention, spectral norm in both players."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.conditioning.conditional_batch_norm import BatchNormConditioning
from ganforge.networks.conditioning.conditioning import MakeConditioning
from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import supported_image_size
from ganforge.networks.layers.attention import SelfAttention, attention_index
from ganforge.networks.layers.residual import DownBlock, UpBlock
from ganforge.networks.sngan import ARCHITECTURES, Architecture, finish


def architecture(image_size: int | None) -> tuple[int, Architecture]:
    size = supported_image_size(image_size, ARCHITECTURES, network="sagan")
    return size, ARCHITECTURES[size]


def attended_size(attention: int | None, image_size: int) -> int:
    """The paper's 32; of pictures of 32 the discriminator has no such feature map, and it is 16, for 48 it is 24."""
    return attention if attention is not None else min(32, image_size // 2)


def conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    return finish(nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias))


class Generator(nn.Module):
    """z -> linear -> up-sampling residual blocks, self-attention among them -> batch norm, ReLU, convolution, tanh.

    Blocks and levels are SNGAN's, with every convolution and the linear layer spectrally normalized; labels by
    default by conditional batch norm.

    Args:
        width: channels before the last convolution, which scales the others in proportion; None is SNGAN's.
        attention: height of the feature map that self-attention follows; None for the paper's, 0 for no attention.

    Raises:
        ValueError: `image_size` is None or unsupported; there is no such feature map.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        attention: int | None = None,
        conditioning: MakeConditioning | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.conditioning = (conditioning or BatchNormConditioning)(latent_dim, num_classes)
        size, arch = architecture(image_size)
        base = arch.generator_width if width is None else width
        widths = [base * level for level in arch.generator_levels]
        sizes = [arch.bottom_size << level for level in range(1, len(widths))]
        self.bottom_shape = (widths[0], arch.bottom_size, arch.bottom_size)
        self.linear = finish(nn.Linear(self.conditioning.features, torch.Size(self.bottom_shape).numel()))
        self.blocks = nn.ModuleList(
            UpBlock(wide, narrow, conv, self.conditioning.norm) for wide, narrow in pairwise(widths)
        )
        self.attended = attention_index(attended_size(attention, size), sizes, network="sagan's generator")
        self.attention = None if self.attended is None else SelfAttention(widths[self.attended + 1], conv)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = conv(widths[-1], channels, 3)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        code, condition = self.conditioning(z, labels)
        h = self.linear(code).unflatten(1, self.bottom_shape)
        for index, block in enumerate(self.blocks):
            h = block(h, condition)
            if self.attention is not None and index == self.attended:
                h = self.attention(h)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))


class Discriminator(nn.Module):
    """Residual blocks, self-attention among them, ReLU, global sum pooling, then a head: by default a projection.

    Every layer, the head's too, is spectrally normalized. `width` and `attention` as in the generator.

    Raises:
        ValueError: `image_size` is None or unsupported; there is no such feature map.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        attention: int | None = None,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        size, arch = architecture(image_size)
        base = arch.discriminator_width if width is None else width
        widths = [base * level for level in arch.discriminator_levels]
        sizes = [size >> min(level, arch.downsamples) for level in range(1, len(widths) + 1)]
        attended = attention_index(attended_size(attention, size), sizes, network="sagan's discriminator")
        layers: list[nn.Module] = []
        for index, wide in enumerate(widths):
            downsample = index < arch.downsamples
            layers.append(DownBlock(channels, wide, conv, downsample=downsample, first=index == 0, wide=True))
            if index == attended:
                layers.append(SelfAttention(wide, conv))
            channels = wide
        self.blocks = nn.Sequential(*layers)
        self.head = (head or Projection)(widths[-1], num_classes, finish)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        return F.relu(self.blocks(images)).sum(dim=(2, 3))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
