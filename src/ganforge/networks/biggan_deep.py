"""BigGAN-deep (Brock, Donahue & Simonyan 2019, arXiv:1809.11096, appendix B): four times as deep, with bottlenecks."""

from __future__ import annotations

import functools
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.biggan import Architecture, conv, finish, orthogonal
from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import supported_image_size
from ganforge.networks.layers.attention import SelfAttention, attention_index
from ganforge.networks.layers.batch_norm import ModulatedBatchNorm
from ganforge.networks.layers.residual import Norm

REDUCTION = 4
"""How many times fewer channels the two 3x3 convolutions of a block have."""

# Discriminator: the output of the first convolution, then of each pair of blocks; all but `kept` pairs halve it.
ARCHITECTURES = {
    32: Architecture(64, (4, 4, 4, 4), (4, 4, 4, 4), attention=0),
    64: Architecture(128, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), attention=32, kept=0),
    128: Architecture(128, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), attention=64, kept=0),
    256: Architecture(128, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), attention=64, kept=0),
    512: Architecture(128, (16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), attention=64, kept=0),
}


def bottleneck(channels: int) -> int:
    return max(1, channels // REDUCTION)


class UpBlock(nn.Module):
    """x -> upsample(the first channels of x) + 1x1(3x3(3x3(upsample(1x1(x))))), a norm and a ReLU before each."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, *, upsample: bool) -> None:
        super().__init__()
        hidden = bottleneck(in_channels)
        self.out_channels, self.upsample = out_channels, upsample
        self.norms = nn.ModuleList([norm(in_channels), *(norm(hidden) for _ in range(3))])
        self.reduce = conv(in_channels, hidden, 1)
        self.conv1 = conv(hidden, hidden, 3)
        self.conv2 = conv(hidden, hidden, 3)
        self.expand = conv(hidden, out_channels, 1)

    def resize(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0) if self.upsample else x

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, H, W), or twice H and W; `condition` is what the norms take."""
        norm1, norm2, norm3, norm4 = self.norms
        h: Tensor = self.reduce(F.relu(norm1(x, condition)))
        h = self.conv1(self.resize(F.relu(norm2(h, condition))))
        h = self.conv2(F.relu(norm3(h, condition)))
        h = self.expand(F.relu(norm4(h, condition)))
        shortcut: Tensor = self.resize(x[:, : self.out_channels])
        return shortcut + h


class DownBlock(nn.Module):
    """x -> pool(x) + 1x1(pool(3x3(3x3(1x1(x))))), ReLUs before each; new channels are 1x1(pool(x)), beside pool(x)."""

    def __init__(self, in_channels: int, out_channels: int, *, downsample: bool) -> None:
        super().__init__()
        hidden = bottleneck(out_channels)
        self.downsample = downsample
        self.reduce = conv(in_channels, hidden, 1)
        self.conv1 = conv(hidden, hidden, 3)
        self.conv2 = conv(hidden, hidden, 3)
        self.expand = conv(hidden, out_channels, 1)
        more = out_channels - in_channels
        self.shortcut = conv(in_channels, more, 1) if more else None

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.downsample else x

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, H, W), or half of H and W."""
        h: Tensor = self.reduce(F.relu(x))
        h = self.conv1(F.relu(h))
        h = self.conv2(F.relu(h))
        h = self.expand(self.pool(F.relu(h)))
        x = self.pool(x)
        if self.shortcut is not None:
            x = torch.cat([x, self.shortcut(x)], dim=1)
        return x + h


class Generator(nn.Module):
    """z and the label's embedding -> linear -> pairs of bottleneck blocks -> batch norm, ReLU, 3x3 convolution, tanh.

    The second block of each pair up-samples. Every block's batch norms take their gains and biases from all of z,
    joined with classes to the embedding. Self-attention follows one pair.

    Args:
        width: channels before the last convolution at 128 and 256, `ch` in the paper's tables; None is the paper's
            128, 64 for 32x32.
        embedding_dim: length of the label's embedding.
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
        embedding_dim: int = 128,
        attention: int | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        arch = ARCHITECTURES[supported_image_size(image_size, ARCHITECTURES, network="biggan_deep")]
        widths = [(width or arch.width) * level for level in arch.generator_levels]
        self.embedding = orthogonal(nn.Embedding(num_classes, embedding_dim)) if num_classes else None
        condition_dim = latent_dim + (embedding_dim if num_classes else 0)
        self.bottom_shape = (widths[0], 4, 4)
        self.linear = finish(nn.Linear(condition_dim, torch.Size(self.bottom_shape).numel()))
        norm = functools.partial(ModulatedBatchNorm, condition_dim=condition_dim, finish=finish)
        self.blocks = nn.ModuleList()
        for wide, narrow in pairwise(widths):
            self.blocks.append(UpBlock(wide, wide, norm, upsample=False))
            self.blocks.append(UpBlock(wide, narrow, norm, upsample=True))
        sizes = [4 << level for level in range(1, len(widths))]
        asked = arch.attention if attention is None else attention
        self.attended = attention_index(asked, sizes, network="biggan_deep's generator")
        self.attention = None if self.attended is None else SelfAttention(widths[self.attended + 1], conv)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = conv(widths[-1], channels, 3)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        condition = z
        if self.embedding is not None:
            condition = torch.cat([z, self.embedding(labels)], dim=1)
        h = self.linear(condition).unflatten(1, self.bottom_shape)
        for index, block in enumerate(self.blocks):
            h = block(h, condition)
            if self.attention is not None and self.attended is not None and index == 2 * self.attended + 1:
                h = self.attention(h)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))


class Discriminator(nn.Module):
    """A 3x3 convolution, pairs of bottleneck blocks, ReLU, global sum pooling, then a head: by default a projection.

    The first block of each pair halves the feature map. Self-attention follows one pair. Every layer, the head's too,
    is spectrally normalized. `width` and `attention` as in the generator.

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
        size = supported_image_size(image_size, ARCHITECTURES, network="biggan_deep")
        arch = ARCHITECTURES[size]
        widths = [(width or arch.width) * level for level in arch.discriminator_levels]
        downsamples = len(widths) - 1 - arch.kept
        sizes = [size >> min(level, downsamples) for level in range(1, len(widths))]
        asked = arch.attention if attention is None else attention
        attended = attention_index(asked, sizes, network="biggan_deep's discriminator")
        layers: list[nn.Module] = [conv(channels, widths[0], 3)]
        for index, (narrow, wide) in enumerate(pairwise(widths)):
            layers.append(DownBlock(narrow, wide, downsample=index < downsamples))
            layers.append(DownBlock(wide, wide, downsample=False))
            if index == attended:
                layers.append(SelfAttention(wide, conv))
        self.blocks = nn.Sequential(*layers)
        self.head = (head or Projection)(widths[-1], num_classes, finish)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        return F.relu(self.blocks(images)).sum(dim=(2, 3))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
