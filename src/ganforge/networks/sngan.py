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

from ganforge.networks.image_size import supported_image_size

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


def conv3x3(in_channels: int, out_channels: int, *, gain: float = sqrt(2)) -> nn.Conv2d:
    return xavier(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1), gain=gain)


class ConditionalBatchNorm(nn.Module):
    """Batch norm with a gain and a bias per label (arXiv:1610.07629), or plain batch norm without classes."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=num_classes == 0)
        self.gain = nn.Embedding(num_classes, channels) if num_classes else None
        self.bias = nn.Embedding(num_classes, channels) if num_classes else None
        if self.gain is not None and self.bias is not None:
            nn.init.ones_(self.gain.weight)
            nn.init.zeros_(self.bias.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        normalized: Tensor = self.norm(features)
        if self.gain is None or self.bias is None:
            return normalized
        # Under autocast the features are bfloat16; with a float32 gain all that follows would be float32 again.
        gain: Tensor = self.gain(labels).to(normalized.dtype)
        bias: Tensor = self.bias(labels).to(normalized.dtype)
        return bias[:, :, None, None].addcmul(normalized, gain[:, :, None, None])


class UpBlock(nn.Module):
    """x -> upsample(1x1(x)) + 3x3(relu(norm(3x3(upsample(relu(norm(x))))))), to the nearest, twice the size.

    The 1x1 convolution commutes with the upsampling and is a quarter of the work before it.
    """

    def __init__(self, in_channels: int, out_channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(in_channels, num_classes)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.norm2 = ConditionalBatchNorm(out_channels, num_classes)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = xavier(nn.Conv2d(in_channels, out_channels, kernel_size=1))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h: Tensor = F.relu(self.norm1(x, labels), inplace=True)
        h = self.conv1(F.interpolate(h, scale_factor=2.0))
        h = F.relu(self.norm2(h, labels), inplace=True)
        h = self.conv2(h)
        return h + F.interpolate(self.shortcut(x), scale_factor=2.0)


class Generator(nn.Module):
    """z -> linear -> up-sampling residual blocks -> batch norm, ReLU, 3x3 convolution, tanh.

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
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        arch = architecture(image_size)
        base = arch.generator_width if width is None else width
        widths = [base * level for level in arch.generator_levels]
        self.bottom_shape = (widths[0], arch.bottom_size, arch.bottom_size)
        self.linear = xavier(nn.Linear(latent_dim, torch.Size(self.bottom_shape).numel()))
        self.blocks = nn.ModuleList(UpBlock(wide, narrow, num_classes) for wide, narrow in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = conv3x3(widths[-1], channels, gain=1.0)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        h = self.linear(z).unflatten(1, self.bottom_shape)
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))


class DownBlock(nn.Module):
    """x -> 1x1(pool(x)) + pool(3x3(relu(3x3(relu(x))))), every convolution spectrally normalized.

    Without `downsample` there is no pooling, and no 1x1 convolution where the channels stay. The `first`
    block, whose input is the image, leaves out the ReLU in front. The authors' other blocks pool after their
    1x1 convolution; the two commute, and this order is a quarter of the work.
    """

    def __init__(self, in_channels: int, out_channels: int, *, downsample: bool, first: bool) -> None:
        super().__init__()
        hidden = out_channels if first else in_channels
        self.first = first
        self.downsample = downsample
        self.conv1 = spectral_norm(conv3x3(in_channels, hidden))
        self.conv2 = spectral_norm(conv3x3(hidden, out_channels))
        self.shortcut: nn.Module = nn.Identity()
        if downsample or in_channels != out_channels:
            self.shortcut = spectral_norm(xavier(nn.Conv2d(in_channels, out_channels, kernel_size=1)))

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.downsample else x

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu(h, inplace=True))
        shortcut: Tensor = self.shortcut(self.pool(x))
        return self.pool(h) + shortcut


class Discriminator(nn.Module):
    """Residual blocks, ReLU, global sum pooling, linear; with classes + <embedding(label), pooled features>.

    `width` is the number of channels after the first block and scales the others in proportion; None is the
    paper's (128 for 32x32, otherwise 64). Every layer, the embedding too, is spectrally normalized, with one
    power iteration per forward in training mode and none in evaluation mode.

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self, image_size: int | None, channels: int, num_classes: int = 0, width: int | None = None
    ) -> None:
        super().__init__()
        arch = architecture(image_size)
        base = arch.discriminator_width if width is None else width
        widths = [channels] + [base * level for level in arch.discriminator_levels]
        self.blocks = nn.Sequential(
            *(
                DownBlock(before, after, downsample=index < arch.downsamples, first=index == 0)
                for index, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.linear = spectral_norm(xavier(nn.Linear(widths[-1], 1)))
        self.label_embedding = (
            spectral_norm(xavier(nn.Embedding(num_classes, widths[-1]))) if num_classes else None
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        features = F.relu(self.blocks(images)).sum(dim=(2, 3))
        logits: Tensor = self.linear(features).squeeze(1)
        if self.label_embedding is not None:
            logits = logits + (self.label_embedding(labels) * features).sum(dim=1)
        return logits
