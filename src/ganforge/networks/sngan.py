"""Residual networks with spectral norm (Miyato et al. 2018, arXiv:1802.05957); labels by conditional batch
norm in the generator and projection in the discriminator (Miyato & Koyama 2018, arXiv:1802.05637).
"""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.networks.conditioning.conditional_batch_norm import BatchNormConditioning
from ganforge.networks.conditioning.conditioning import MakeConditioning
from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import supported_image_size
from ganforge.networks.layers.residual import DownBlock, UpBlock

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)


@dataclass(frozen=True)
class Architecture:
    """One row of the papers' tables; widths are multiples of the channels at the image end."""

    bottom_size: int  # height and width of the generator's first feature map
    generator_width: int
    generator_levels: tuple[int, ...]  # the first feature map, then the output of each up-sampling block
    discriminator_width: int
    discriminator_levels: tuple[int, ...]  # the output of each block
    downsamples: int  # how many blocks, from the first on, halve the feature map


ARCHITECTURES = {
    # arXiv:1802.05957, appendix B.4, the table for CIFAR-10
    32: Architecture(4, 256, (1, 1, 1, 1), 128, (1, 1, 1, 1), downsamples=2),
    # The same, the table for STL-10
    48: Architecture(6, 64, (8, 4, 2, 1), 64, (1, 2, 4, 8, 16), downsamples=4),
    # gen_models/resnet_64.py and dis_models/snresnet_64.py of the authors' pfnet-research/sngan_projection
    64: Architecture(4, 64, (16, 8, 4, 2, 1), 64, (1, 2, 4, 8, 16), downsamples=5),
    # The same, the table for ImageNet
    128: Architecture(4, 64, (16, 16, 8, 4, 2, 1), 64, (1, 2, 4, 8, 16, 16), downsamples=5),
}


def architecture(image_size: int | None) -> Architecture:
    return ARCHITECTURES[supported_image_size(image_size, ARCHITECTURES, network="sngan")]


def xavier(layer: Layer, *, gain: float = 1.0) -> Layer:
    """Xavier-uniform weights with the authors' gains: sqrt(2) in residual branches, 1 elsewhere."""
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def finish(layer: Layer) -> Layer:
    """What spectrally normalized layers outside of the residual branches, the head's among them, are made to be."""
    spectral_norm(xavier(layer))
    return layer


def conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    """A convolution of the generator's blocks."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
    return xavier(layer, gain=sqrt(2) if kernel_size == 3 else 1.0)


def normalized_conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    """A convolution of the discriminator's."""
    layer = conv(in_channels, out_channels, kernel_size, bias)
    spectral_norm(layer)
    return layer


class Generator(nn.Module):
    """z -> linear -> up-sampling residual blocks -> batch norm, ReLU, 3x3 convolution, tanh; labels by default by
    conditional batch norm in the blocks.

    `width` is the number of channels before the last convolution and scales the others in proportion; None is
    the paper's (256 for 32x32, otherwise 64).

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
        conditioning: MakeConditioning | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.conditioning = (conditioning or BatchNormConditioning)(latent_dim, num_classes)
        arch = architecture(image_size)
        base = arch.generator_width if width is None else width
        widths = [base * level for level in arch.generator_levels]
        self.bottom_shape = (widths[0], arch.bottom_size, arch.bottom_size)
        self.linear = xavier(nn.Linear(self.conditioning.features, torch.Size(self.bottom_shape).numel()))
        self.blocks = nn.ModuleList(
            UpBlock(wide, narrow, conv, self.conditioning.norm) for wide, narrow in pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = xavier(nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        code, condition = self.conditioning(z, labels)
        h = self.linear(code).unflatten(1, self.bottom_shape)
        for block in self.blocks:
            h = block(h, condition)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))


class Discriminator(nn.Module):
    """Residual blocks, ReLU, global sum pooling, then a head: by default linear, with classes a projection.

    `width` is the number of channels after the first block and scales the others in proportion; None is the
    paper's (128 for 32x32, otherwise 64). Every layer, the head's too, is spectrally normalized, with one
    power iteration per forward in training mode and none in evaluation mode.

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int | None = None,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        arch = architecture(image_size)
        base = arch.discriminator_width if width is None else width
        widths = [channels] + [base * level for level in arch.discriminator_levels]
        self.blocks = nn.Sequential(
            *(
                DownBlock(
                    before,
                    after,
                    normalized_conv,
                    downsample=index < arch.downsamples,
                    first=index == 0,
                    wide=False,
                )
                for index, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.head = (head or Projection)(widths[-1], num_classes, finish)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        return F.relu(self.blocks(images)).sum(dim=(2, 3))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
