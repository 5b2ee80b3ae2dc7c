"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): z becomes a style w, which scales the channels of each layer.

Labels enter the mapping and a projection head as in StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676). Everything is
plain PyTorch: no kernel is built, gradients exist to any order, and the compiler takes both networks whole.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.heads.head import MakeHead
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import level_widths
from ganforge.networks.layers.activation import activate, normalize
from ganforge.networks.layers.equalized import EqualizedConv2d, EqualizedEmbedding, EqualizedLinear, equalized
from ganforge.networks.layers.minibatch_deviation import MinibatchDeviation
from ganforge.networks.layers.noise import Noise
from ganforge.networks.layers.resampling import Filter

# Channels of a level times its height, up to `max_width`: configuration F of the paper's table 1.
widths_of_levels = functools.partial(level_widths, features=32768, network="stylegan2")


def modulated_conv2d(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool = True, up: bool = False
) -> Tensor:
    """Convolution with each sample's own weights: s_i w_oik, demodulated divided by their norm over i and k.

    Equations 1 and 3 of the paper. A factor of an input channel can as well scale that channel of x, and one of an
    output channel that of the output: then all samples share one convolution, which on the CPU is as fast as or faster
    than a grouped one with weights of each sample (8 samples of 64 channels, 32x32, forward and backward: 0.97 of its
    time, up-sampling 0.73) and takes no memory for those.

    Args:
        x: (B, I, H, W).
        weight: (O, I, K, K).
        styles: s, (B, I).
        up: with stride 1/2, K odd.

    Returns:
        (B, O, H, W), with `up` (B, O, 2H + K - 2, 2W + K - 2).
    """
    x = x * styles[:, :, None, None]
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if demodulate:
        squares = styles.square() @ weight.square().sum(dim=(2, 3)).T
        # Under autocast a root is float32, with which all that follows would be float32 again.
        x = x * torch.rsqrt(squares + 1e-8).to(x.dtype)[:, :, None, None]
    return x


class Mapping(nn.Module):
    """(z, label) -> w: fully connected layers with a hundredth of the learning rate."""

    def __init__(self, latent_dim: int, num_classes: int, w_dim: int, depth: int) -> None:
        super().__init__()
        self.embedding = EqualizedEmbedding(num_classes, w_dim) if num_classes else None
        features = latent_dim + (w_dim if num_classes else 0)
        widths = [features, *[w_dim] * depth]
        self.layers = nn.ModuleList(EqualizedLinear(i, o, learning_rate=0.01) for i, o in pairwise(widths))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (B, latent_dim), labels int64 (B,) -> w (B, w_dim)."""
        w = normalize(z)
        if self.embedding is not None:
            w = torch.cat([w, normalize(self.embedding(labels))], dim=1)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class StyledConv(nn.Module):
    """A modulated 3x3 convolution, noise, a bias and the activation; `up` doubles height and width first."""

    def __init__(self, in_channels: int, out_channels: int, size: int, w_dim: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.style = EqualizedLinear(w_dim, in_channels, initial_bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.scale = 1 / sqrt(in_channels * 9)
        self.filter = Filter() if up else None
        self.noise = Noise(size)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (B, in_channels, H, W), w (B, w_dim) -> (B, out_channels, size, size)."""
        x = modulated_conv2d(x, self.weight * self.scale, self.style(w), up=self.up)
        if self.filter is not None:
            x = self.filter.blur(x, padding=1) * 4  # of four places that the stride makes, one has input
        x = self.noise(x) + self.bias[:, None, None].to(x.dtype)
        return activate(x)


class ToImage(nn.Module):
    """A modulated 1x1 convolution to the image's channels, without demodulation."""

    def __init__(self, in_channels: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, in_channels, initial_bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 1, 1))
        self.scale = 1 / sqrt(in_channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated_conv2d(x, self.weight * self.scale, self.style(w), demodulate=False)
        return x + self.bias[:, None, None].to(x.dtype)


class Synthesis(nn.Module):
    """Styles -> image: from a learned 4x4 map, two styled convolutions a level; each level adds to a growing image."""

    def __init__(self, widths: dict[int, int], channels: int, w_dim: int) -> None:
        super().__init__()
        heights = list(widths)
        self.start = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.convs = nn.ModuleList([StyledConv(widths[4], widths[4], 4, w_dim, up=False)])
        for before, height in pairwise(heights):
            self.convs.append(StyledConv(widths[before], widths[height], height, w_dim, up=True))
            self.convs.append(StyledConv(widths[height], widths[height], height, w_dim, up=False))
        self.to_image = nn.ModuleList(ToImage(widths[height], channels, w_dim) for height in heights)
        self.filter = Filter()
        self.num_styles = len(self.convs) + 1

    def forward(self, w: Tensor) -> Tensor:
        """w (B, w_dim), or (B, num_styles, w_dim) with a style for each layer -> images (B, C, H, W)."""
        styles = w.unbind(1) if w.dim() == 3 else (w,) * self.num_styles
        x = self.start.expand(len(w), -1, -1, -1)
        x = self.convs[0](x, styles[0])
        image: Tensor = self.to_image[0](x, styles[1])
        for level, to_image in enumerate(self.to_image[1:], start=1):
            x = self.convs[2 * level - 1](x, styles[2 * level - 1])
            x = self.convs[2 * level](x, styles[2 * level])
            image = self.filter.upsample(image) + to_image(x, styles[2 * level + 1])
        return image


class Generator(nn.Module):
    """Mapping and synthesis. Images have no tanh: they are bounded by [-1, 1] in evaluation mode alone.

    Args:
        latent_dim: length of z.
        width: channels at the image's own level, doubled from level to level down to 4x4; None for configuration F
            (32 at 1024x1024, 128 at 256x256, all levels of `max_width` at 64x64 and below).
        max_width: most channels of a level.
        w_dim: length of a style.
        depth: layers of the mapping.
        mixing: in training mode, the share of images whose layers, from a random one on, take the style of another,
            random z (style mixing, arXiv:1812.04948, section 3.1).

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
        w_dim: int = 512,
        depth: int = 8,
        mixing: float = 0.9,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mixing = mixing
        self.mapping = Mapping(latent_dim, num_classes, w_dim, depth)
        self.synthesis = Synthesis(widths_of_levels(image_size, width, max_width), channels, w_dim)

    def forward(
        self, z: Tensor, labels: Tensor, truncation: float = 1.0, mean: Tensor | None = None
    ) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W).

        Args:
            truncation: ψ; the style is mean + ψ (w - mean), the image of less variety (arXiv:1812.04948, appendix B).
            mean: (B, w_dim), what `mean_style` gives where it is known already.
        """
        w: Tensor = self.mapping(z, labels)
        if truncation != 1:
            w = (self.mean_style(labels) if mean is None else mean).lerp(w, truncation)
        if self.training and self.mixing > 0:
            w = self._mixed(w, torch.randn_like(z), labels)
        images: Tensor = self.synthesis(w)
        return images if self.training else images.clamp(-1, 1)

    @torch.no_grad()
    def mean_style(self, labels: Tensor, samples: int = 4096) -> Tensor:
        """For each label its styles' mean, (B, w_dim), over z of a seed of its own: a function of the weights alone."""
        z = torch.randn(samples, self.latent_dim, generator=torch.Generator().manual_seed(0)).to(
            labels.device
        )
        kinds, kind = torch.unique(
            labels if self.mapping.embedding is not None else torch.zeros_like(labels), return_inverse=True
        )
        means = [self.mapping(z, label.expand(samples)).mean(dim=0) for label in kinds]
        return torch.stack(means)[kind]

    def _mixed(self, w: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        """w (B, w_dim) -> styles (B, num_styles, w_dim) that change to those of z at a random layer."""
        layers, device = self.synthesis.num_styles, w.device
        cut = torch.randint(1, layers, (len(w), 1), device=device)
        cut = torch.where(torch.rand(len(w), 1, device=device) < self.mixing, cut, layers)
        kept = torch.arange(layers, device=device) < cut
        other: Tensor = self.mapping(z, labels)
        return torch.where(kept[:, :, None], w[:, None], other[:, None])


class DownBlock(nn.Module):
    """Two 3x3 convolutions, the second with stride 2 behind the filter; with `residual` x joins them by a 1x1."""

    def __init__(self, in_channels: int, out_channels: int, *, residual: bool) -> None:
        super().__init__()
        self.filter = Filter()
        self.conv1 = EqualizedConv2d(in_channels, in_channels, 3, padding=1)
        self.conv2 = EqualizedConv2d(in_channels, out_channels, 3, stride=2)
        self.shortcut = EqualizedConv2d(in_channels, out_channels, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, H/2, W/2)."""
        h = activate(self.conv1(x))
        h = activate(self.conv2(self.filter.blur(h, padding=2)))
        if self.shortcut is None:
            return h
        shortcut: Tensor = self.shortcut(self.filter.downsample(x))
        return (h + shortcut) * sqrt(0.5)


class Discriminator(nn.Module):
    """Down to 4x4, minibatch standard deviation, a convolution, a linear layer, then a head: by default a projection.

    Args:
        width, max_width: as in the generator.
        group_size: images of a group of the minibatch standard deviation.
        residual: whether blocks have shortcuts; without them, StyleGAN's discriminator, as for CIFAR-10 in
            StyleGAN2-ADA.

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
        group_size: int = 4,
        residual: bool = True,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        widths = list(widths_of_levels(image_size, width, max_width).values())[::-1]
        self.from_image = EqualizedConv2d(channels, widths[0], 1)
        self.blocks = nn.Sequential(*(DownBlock(i, o, residual=residual) for i, o in pairwise(widths)))
        self.deviation = MinibatchDeviation(group_size)
        self.conv = EqualizedConv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.linear = EqualizedLinear(widths[-1] * 4 * 4, widths[-1])
        self.head = (head or Projection)(widths[-1], num_classes, equalized)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        x = self.blocks(activate(self.from_image(images)))
        x = activate(self.conv(self.deviation(x)))
        return activate(self.linear(x.flatten(1)))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
