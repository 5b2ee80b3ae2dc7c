"""BigGAN (Brock, Donahue & Simonyan 2019, arXiv:1809.11096): wide residual networks, and z enters at every block."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import supported_image_size
from ganforge.networks.layers.attention import SelfAttention, attention_index
from ganforge.networks.layers.batch_norm import ModulatedBatchNorm
from ganforge.networks.layers.residual import DownBlock, UpBlock

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)
CHUNK = 20
"""Length of the piece of z that each block takes, and the first linear layer: 120 in all at 128x128."""


@dataclass(frozen=True)
class Architecture:
    """One row of the tables; levels are multiples of the width."""

    width: int
    generator_levels: tuple[int, ...]  # the 4x4 feature map, then the output of each up-sampling block
    discriminator_levels: tuple[int, ...]  # the output of each block
    attention: int  # height of the feature map that attention follows; 0 for none
    kept: int = 1  # how many of the last blocks of the discriminator keep the size


ARCHITECTURES = {
    # Appendix B has 128, 256 and 512. 32 and 64 are of the author's ajbrock/BigGAN-PyTorch: 32 as in its script for
    # CIFAR-10; 64 with attention at 32 where that has none below the picture's size.
    32: Architecture(64, (4, 4, 4, 4), (4, 4, 4, 4), attention=0, kept=2),
    64: Architecture(96, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16), attention=32),
    128: Architecture(96, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), attention=64),
    256: Architecture(96, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), attention=64),
    512: Architecture(96, (16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), attention=64),
}


def orthogonal(layer: Layer) -> Layer:
    nn.init.orthogonal_(layer.weight)
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)
    return layer


def finish(layer: Layer) -> Layer:
    """What every layer but the labels' shared embedding is made to be."""
    spectral_norm(orthogonal(layer))
    return layer


def conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    return finish(nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias))


class Generator(nn.Module):
    """z -> linear on its first piece -> up-sampling residual blocks -> batch norm, ReLU, 3x3 convolution, tanh.

    Each block's batch norms take their gains and biases from the next piece of z, joined with classes to an embedding
    of the label that all blocks share. Self-attention follows one block.

    Args:
        latent_dim: length of z, at least one number a piece; None for the paper's 20 a piece (80 at 32x32, 120 at
            128x128, 160 at 512x512). What does not go up evenly goes to the first piece.
        width: channels before the last convolution at 128 and 256, `ch` in the paper's tables; None is the paper's 96,
            64 for 32x32.
        embedding_dim: length of the label's embedding.
        attention: height of the feature map that self-attention follows; None for the paper's, 0 for no attention.

    Raises:
        ValueError: `image_size` is None or unsupported; z is too short; there is no such feature map.
    """

    def __init__(
        self,
        latent_dim: int | None,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        embedding_dim: int = 128,
        attention: int | None = None,
    ) -> None:
        super().__init__()
        arch = ARCHITECTURES[supported_image_size(image_size, ARCHITECTURES, network="biggan")]
        widths = [(width or arch.width) * level for level in arch.generator_levels]
        pieces = len(widths)
        self.latent_dim = CHUNK * pieces if latent_dim is None else latent_dim
        if self.latent_dim < pieces:
            raise ValueError(
                f"latent_dim={self.latent_dim}: biggan cuts z into {pieces} pieces for image_size={image_size}, and "
                f"needs at least {pieces} numbers"
            )
        piece = self.latent_dim // pieces
        self.pieces = [self.latent_dim - piece * (pieces - 1)] + [piece] * (pieces - 1)
        self.embedding = orthogonal(nn.Embedding(num_classes, embedding_dim)) if num_classes else None
        self.bottom_shape = (widths[0], 4, 4)
        self.linear = finish(nn.Linear(self.pieces[0], torch.Size(self.bottom_shape).numel()))
        condition_dim = piece + (embedding_dim if num_classes else 0)
        norm = functools.partial(ModulatedBatchNorm, condition_dim=condition_dim, finish=finish)
        self.blocks = nn.ModuleList(UpBlock(wide, narrow, conv, norm) for wide, narrow in pairwise(widths))
        sizes = [4 << level for level in range(1, pieces)]
        asked = arch.attention if attention is None else attention
        self.attended = attention_index(asked, sizes, network="biggan's generator")
        self.attention = None if self.attended is None else SelfAttention(widths[self.attended + 1], conv)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = conv(widths[-1], channels, 3)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        first, *pieces = torch.split(z, self.pieces, dim=1)
        if self.embedding is not None:
            embedded = self.embedding(labels)
            pieces = [torch.cat([embedded, piece], dim=1) for piece in pieces]
        h = self.linear(first).unflatten(1, self.bottom_shape)
        for index, (block, piece) in enumerate(zip(self.blocks, pieces, strict=True)):
            h = block(h, piece)
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
        size = supported_image_size(image_size, ARCHITECTURES, network="biggan")
        arch = ARCHITECTURES[size]
        widths = [(width or arch.width) * level for level in arch.discriminator_levels]
        downsamples = len(widths) - arch.kept
        sizes = [size >> min(level, downsamples) for level in range(1, len(widths) + 1)]
        asked = arch.attention if attention is None else attention
        attended = attention_index(asked, sizes, network="biggan's discriminator")
        layers: list[nn.Module] = []
        for index, wide in enumerate(widths):
            downsample = index < downsamples
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
