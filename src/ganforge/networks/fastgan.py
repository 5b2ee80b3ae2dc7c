"""FastGAN (Liu et al. 2021, arXiv:2101.04775), light networks for few images: skip-layer excitation, gated units.

The discriminator's decoders, which reconstruct real images, are there where penalty=[reconstruction] adds them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import supported_image_size
from ganforge.networks.layers.batch_norm import NormName, norm2d
from ganforge.networks.layers.noise import Noise

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)

IMAGE_SIZES = (64, 128, 256, 512, 1024)
# Channels by height, in widths: of the authors' odegeasslbc/FastGAN-pytorch.
LEVELS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 1 / 2, 512: 1 / 4, 1024: 1 / 8}
LABEL_DIM = 32


def channels_at(height: int, width: int) -> int:
    return max(1, int(width * LEVELS[height]))


def finish(layer: Layer) -> Layer:
    """N(0, 0.02) weights, spectrally normalized."""
    nn.init.normal_(layer.weight, 0.0, 0.02)
    spectral_norm(layer)
    return layer


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    return finish(nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False))


class GatedConv(nn.Module):
    """3x3 convolution to twice the channels, noise where asked for, batch norm, and one half gates the other (GLU)."""

    def __init__(self, in_channels: int, out_channels: int, size: int, *, noise: bool) -> None:
        super().__init__()
        self.conv = conv(in_channels, 2 * out_channels, 3, padding=1)
        self.noise = Noise(size) if noise else nn.Identity()
        self.norm = nn.BatchNorm2d(2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.norm(self.noise(self.conv(x))), dim=1)


class Excitation(nn.Module):
    """Skip-layer excitation: the channels of a large map, scaled by what a small map from 16 times below says.

    Equation 1: y = F(x_low) · x_high, F being 4x4 average pooling, a 4x4 convolution, leaky ReLU, a 1x1 one, a sigmoid.
    """

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            conv(low_channels, high_channels, 4),
            nn.LeakyReLU(0.1),
            conv(high_channels, high_channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        gates: Tensor = self.gate(low)
        return high * gates


class Generator(nn.Module):
    """z, joined to an embedding of the label -> 4x4 -> a gated convolution or two a level -> 3x3 convolution, tanh.

    Every other level, from 8x8 on, has two convolutions and noise. Maps from 64x64 to 512x512 are excited by those 16
    times smaller.

    Args:
        width: channels at 128x128, to which those of other levels are in proportion (16 times as many at 4x4).

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self, latent_dim: int, image_size: int | None, channels: int, num_classes: int = 0, width: int = 64
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        size = supported_image_size(image_size, IMAGE_SIZES, network="fastgan")
        heights = [height for height in LEVELS if height <= size]
        self.embedding = nn.Embedding(num_classes, LABEL_DIM) if num_classes else None
        features = latent_dim + (LABEL_DIM if num_classes else 0)
        first = channels_at(4, width)
        self.start = nn.Sequential(
            finish(nn.Linear(features, 2 * first * 4 * 4, bias=False)),
            nn.Unflatten(1, (2 * first, 4, 4)),
            nn.BatchNorm2d(2 * first),
            nn.GLU(dim=1),
        )
        self.levels = nn.ModuleList()
        for below, height in pairwise(heights):
            before, after = channels_at(below, width), channels_at(height, width)
            noisy = height in (8, 32, 128, 512)
            level: list[nn.Module] = [GatedConv(before, after, height, noise=noisy)]
            if noisy:
                level.append(GatedConv(after, after, height, noise=True))
            self.levels.append(nn.Sequential(nn.Upsample(scale_factor=2.0), *level))
        self.excitations = nn.ModuleList(
            Excitation(channels_at(height // 16, width), channels_at(height, width))
            for height in heights
            if 64 <= height <= 512
        )
        self.conv = conv(channels_at(size, width), channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], dim=1)
        maps = [self.start(z)]
        for index, level in enumerate(self.levels):
            x = level(maps[-1])
            if 3 <= index < 3 + len(self.excitations):  # from 64x64
                x = self.excitations[index - 3](maps[index - 3], x)
            maps.append(x)
        return torch.tanh(self.conv(maps[-1]))


class DownBlock(nn.Module):
    """The mean of a strided 4x4 and a 3x3 convolution, and of a 1x1 convolution of the pooled map."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormName) -> None:
        super().__init__()

        def unit(layer: nn.Conv2d) -> list[nn.Module]:
            return [layer, *norm2d(norm, out_channels), nn.LeakyReLU(0.2, inplace=True)]

        self.convolved = nn.Sequential(
            *unit(conv(in_channels, out_channels, 4, stride=2, padding=1)),
            *unit(conv(out_channels, out_channels, 3, padding=1)),
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(2), *unit(conv(in_channels, out_channels, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, H/2, W/2)."""
        mean: Tensor = (self.convolved(x) + self.pooled(x)) / 2
        return mean


class Decoder(nn.Module):
    """A map of 8x8 -> an image of `size` by gated 3x3 convolutions after each doubling, a 3x3 convolution and tanh."""

    def __init__(self, in_channels: int, channels: int, size: int, width: int, norm: NormName) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height = 8
        while height < size:
            height *= 2
            wide = channels_at(height, width)
            layers += [nn.Upsample(scale_factor=2.0), conv(in_channels, 2 * wide, 3, padding=1)]
            layers += [*norm2d(norm, 2 * wide), nn.GLU(dim=1)]
            in_channels = wide
        self.layers = nn.Sequential(*layers, conv(in_channels, channels, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, 8, 8) -> images (B, channels, size, size) in [-1, 1]."""
        images: Tensor = self.layers(x)
        return images


class Discriminator(nn.Module):
    """Strided convolutions to 256x256 where the image is larger, down blocks to 8x8, then a head on 4x4 windows.

    The paper's 5x5 logits, each of a 4x4 window of the last map, are averaged: a linear head of the windows' mean.

    Args:
        width: as in the generator.
        norm: `batch` as in the paper, `layer` (over C, H, W) or `none`.

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int = 64,
        norm: NormName = "batch",
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        size = supported_image_size(image_size, IMAGE_SIZES, network="fastgan")
        wide = channels_at(min(size * 2, 1024), width)
        stride = 1 if size <= 256 else 2
        first = conv(channels, wide, 3 if stride == 1 else 4, stride=stride, padding=1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(0.2, inplace=True)]
        height = size // stride
        while height > 256:
            layers.append(conv(wide, channels_at(height, width), 4, stride=2, padding=1))
            wide = channels_at(height, width)
            layers += [*norm2d(norm, wide), nn.LeakyReLU(0.2, inplace=True)]
            height //= 2
        while height > 8:
            layers.append(DownBlock(wide, channels_at(height, width), norm))
            wide = channels_at(height, width)
            height //= 2
        self.layers_to_8x8 = len(layers)
        last = channels_at(8, width)
        layers += [conv(wide, last, 1), *norm2d(norm, last), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.AvgPool2d(5, stride=1), nn.Flatten())
        self.head = (head or Projection)(last * 4 * 4, num_classes, finish)
        self.channels, self.width, self.norm = channels, width, norm
        self.decoded_size = min(128, size // 2)
        self.decoders: nn.ModuleList | None = None

    def add_decoders(self) -> None:
        """Those of an 8x8 map, and of a quarter of a 16x16 one, to images of 128x128 or half of the size."""
        wide = [channels_at(2 * height, self.width) for height in (8, 16)]
        self.decoders = nn.ModuleList(
            Decoder(before, self.channels, self.decoded_size, self.width, self.norm) for before in wide
        )

    def reconstruct(self, images: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoders make of images (B, C, H, W): the whole ones, and the quarter `which`, int64 (B,), of each.

        Both are (B, C, S, S) in [-1, 1] with S = `decoded_size`. Quarters count from left to right, then down.
        """
        assert self.decoders is not None, "add_decoders() makes them"
        maps: list[Tensor] = []
        x = images
        for layer in self.layers[: self.layers_to_8x8]:
            x = layer(x)
            maps.append(x)
        small, large = maps[-1], maps[-2]
        parts = large.reshape(len(large), -1, 2, 8, 2, 8).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        quarter = parts[torch.arange(len(which), device=which.device), which]
        return self.decoders[0](small), self.decoders[1](quarter)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        features: Tensor = self.layers(images)
        return features

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
