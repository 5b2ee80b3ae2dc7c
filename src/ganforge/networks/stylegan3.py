"""StyleGAN3-T (Karras et al. 2021, arXiv:2106.12423): a generator whose features move with the image, not with pixels.

Features are samples of continuous signals whose frequencies each layer bounds, so that what moves the input moves all
that is made of it. Everything is plain PyTorch: no kernel is built, gradients exist to any order, and the compiler
takes it whole. That is slower than StyleGAN2: forward and backward of the generator take 12 times its CPU time at
256x256 (width 64 in both, one thread; 7 of 16 seconds are the convolutions), 25 times at 64x64 and over 100 times at
16x16, where 14 layers with margins of 10 see 36x36. The discriminator is StyleGAN2's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from math import pi, sqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.image_size import POWERS_OF_TWO, supported_image_size
from ganforge.networks.layers.equalized import EqualizedLinear
from ganforge.networks.layers.filtered import FilteredActivation
from ganforge.networks.layers.styles import Mapping, StyleGenerator
from ganforge.networks.stylegan2 import Discriminator, modulated_conv2d

__all__ = ["Discriminator", "Generator", "Synthesis"]

CRITICAL_LAYERS = 2  # at the end, whose frequencies go up to half of the sampling rate
FIRST_CUTOFF = 2.0  # f_c,0: periods on the canvas, those of a 4x4 map
FIRST_STOPBAND = 2.0**2.1  # f_t,0
LAST_STOPBAND = 2.0**0.3  # f_t,N as a multiple of f_c,N
OUTPUT_SCALE = 0.25  # black and white are -4 and 4 inside (appendix F.1)

# Two passes a round, of batches of 32, halve what is remembered in 22,000 real images; 20,000 in the paper.
MOMENTUM = 0.0005


@dataclass(frozen=True)
class Signal:
    """What a layer's feature maps can hold.

    Attributes:
        cutoff: f_c, up to which frequencies pass, in periods on the width of the canvas.
        half_width: f_h, of the band in which they fade out.
        rate: s, samples on the width of the canvas.
        size: samples, margins included.
        channels: C.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


def signals_of_layers(image_size: int, layers: int, width: int, max_width: int, margin: int) -> list[Signal]:
    """Of each layer's output, by equations 35 and 36 of the paper; the last two of them critically sampled.

    Args:
        layers: more than two.
        width: channels at the image's own band limit; elsewhere inversely proportional to f_c, up to `max_width`.
        margin: samples around the canvas on each side, but for the last layer's.
    """
    signals = []
    for layer in range(layers):
        done = min(layer / (layers - CRITICAL_LAYERS), 1.0)
        last_cutoff = image_size / 2
        cutoff = FIRST_CUTOFF * (last_cutoff / FIRST_CUTOFF) ** done
        stopband = FIRST_STOPBAND * (last_cutoff * LAST_STOPBAND / FIRST_STOPBAND) ** done
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, image_size)))
        signals.append(
            Signal(
                cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                rate=rate,
                size=rate + (2 * margin if layer < layers - 1 else 0),
                channels=min(round(width * image_size / (2 * cutoff)), max_width),
            )
        )
    return signals


class FourierFeatures(nn.Module):
    """Waves of fixed frequencies and phases, turned and shifted as w says, then mixed by learned factors.

    Frequencies are uniform on the disc of the signal's cutoff. An affine layer makes (r_c, r_s, t_x, t_y) of w, which
    divided by the length of (r_c, r_s) are the cosine and sine of an angle and the shift after that turn; at first
    (1, 0, 0, 0) for all w (appendix F.1).
    """

    frequencies: Tensor
    phases: Tensor
    places: Tensor

    def __init__(self, signal: Signal, w_dim: int) -> None:
        super().__init__()
        angles, radii = (
            2 * pi * torch.rand(signal.channels),
            signal.cutoff * torch.rand(signal.channels).sqrt(),
        )
        self.register_buffer("frequencies", torch.stack([angles.cos(), angles.sin()], dim=1) * radii[:, None])
        self.register_buffer("phases", torch.rand(signal.channels))
        places = (torch.arange(signal.size) + 0.5 - signal.size / 2) / signal.rate
        self.register_buffer("places", places, persistent=False)
        self.affine = EqualizedLinear(w_dim, 4)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)
        with torch.no_grad():
            self.affine.bias[0] = 1.0
        self.weight = nn.Parameter(torch.randn(signal.channels, signal.channels))

    def forward(self, w: Tensor, shift: Tensor | None = None) -> Tensor:
        """w (B, w_dim) -> (B, channels, size, size), as wide again as the canvas and its margins.

        Args:
            shift: (B, 2) or (2,), right and down in widths of the canvas, after what w says.
        """
        # Places and phases in bfloat16 would be off by pixels.
        with torch.autocast(w.device.type, enabled=False):
            moved = self.affine(w.to(self.phases.dtype))
            cosine, sine, right, down = (moved / moved[:, :2].norm(dim=1, keepdim=True)).unbind(1)
            if shift is not None:
                right, down = right + shift[..., 0], down + shift[..., 1]
            f_x, f_y = self.frequencies.unbind(1)
            across = cosine[:, None] * f_x - sine[:, None] * f_y
            along = sine[:, None] * f_x + cosine[:, None] * f_y
            phases = self.phases - across * right[:, None] - along * down[:, None]
            turns = (along[:, :, None] * self.places)[..., None] + (across[:, :, None] * self.places)[
                :, :, None
            ]
            waves = torch.sin(2 * pi * (turns + phases[:, :, None, None])) * sqrt(2)
        weight = self.weight / sqrt(len(self.weight))
        return F.conv2d(waves, weight[:, :, None, None])


class NormalizedConv(nn.Module):
    """A modulated convolution of inputs divided by the root of their mean square in training, and a bias."""

    averaged_over_ranks: ClassVar[tuple[str, ...]] = ("mean_square",)
    """Buffers that each process gathers over its own share of a batch."""

    mean_square: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, *, demodulate: bool
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.style = EqualizedLinear(w_dim, in_channels, initial_bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.scale = 1 / sqrt(in_channels * kernel_size**2)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("mean_square", torch.ones(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (B, in_channels, H, W), w (B, w_dim) -> (B, out_channels, H, W)."""
        if self.training:
            with torch.no_grad():
                self.mean_square.lerp_(x.detach().to(self.mean_square.dtype).square().mean(), MOMENTUM)
        x = modulated_conv2d(
            x,
            self.weight * self.scale,
            self.style(w),
            demodulate=self.demodulate,
            gain=torch.rsqrt(self.mean_square + 1e-8),
        )
        return x + self.bias[:, None, None].to(x.dtype)


class Layer(nn.Module):
    """A normalized 3x3 convolution and a filtered activation, from one signal to another."""

    def __init__(self, before: Signal, after: Signal, w_dim: int) -> None:
        super().__init__()
        self.conv = NormalizedConv(before.channels, after.channels, 3, w_dim, demodulate=True)
        self.activation = FilteredActivation(
            in_size=before.size,
            in_rate=before.rate,
            in_cutoff=before.cutoff,
            in_half_width=before.half_width,
            out_size=after.size,
            out_rate=after.rate,
            out_cutoff=after.cutoff,
            out_half_width=after.half_width,
        )

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        made: Tensor = self.activation(self.conv(x, w))
        return made


class Synthesis(nn.Module):
    """Styles -> image: Fourier features, the layers, and a 1x1 convolution to the image's channels."""

    def __init__(self, signals: list[Signal], channels: int, w_dim: int) -> None:
        super().__init__()
        self.input = FourierFeatures(signals[0], w_dim)
        self.layers = nn.ModuleList(Layer(i, o, w_dim) for i, o in pairwise([signals[0], *signals]))
        self.to_image = NormalizedConv(signals[-1].channels, channels, 1, w_dim, demodulate=False)
        self.num_styles = len(self.layers) + 2

    def forward(self, w: Tensor, shift: Tensor | None = None) -> Tensor:
        """w (B, w_dim), or (B, num_styles, w_dim) with a style for each layer -> images (B, C, H, W).

        Args:
            shift: (B, 2) or (2,), how far the image is moved to the right and down, in widths of the image; what comes
                in from outside is made up like the rest.
        """
        first, *styles, last = w.unbind(1) if w.dim() == 3 else (w,) * self.num_styles
        x = self.input(first, shift)
        for layer, style in zip(self.layers, styles, strict=True):
            x = layer(x, style)
        images: Tensor = self.to_image(x, last) * OUTPUT_SCALE
        return images


class Generator(StyleGenerator):
    """Mapping and synthesis.

    Args:
        latent_dim: length of z.
        width: channels at the image's own band limit, more at lower ones; None for the paper's (32 at 1024x1024). Its
            256x256 has 64, half as many as None.
        max_width: most channels of a layer.
        w_dim: length of a style.
        depth: layers of the mapping.
        layers: of the synthesis, at any size; at least 3.
        margin: samples around the canvas on which layers know nothing of its border: fewer cost less, most of all at
            small sizes, and let the image stick to the pixels sooner.
        mixing: see `StyleGenerator`; the paper has none.

    Raises:
        ValueError: `image_size` is None or unsupported, or `layers` or `margin` too small.
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
        depth: int = 2,
        layers: int = 14,
        margin: int = 10,
        mixing: float = 0.0,
    ) -> None:
        size = supported_image_size(image_size, POWERS_OF_TWO, network="stylegan3")
        if layers <= CRITICAL_LAYERS:
            raise ValueError(f"stylegan3 needs at least {CRITICAL_LAYERS + 1} layers, not layers={layers}")
        if margin < 0:
            raise ValueError(f"margin={margin}: there are 0 or more samples around the canvas")
        width = 32768 // size if width is None else width
        signals = signals_of_layers(size, layers, width, max_width, margin)
        mapping = Mapping(latent_dim, num_classes, w_dim, depth)
        synthesis = Synthesis(signals, channels, w_dim)
        super().__init__(latent_dim, mapping, synthesis, synthesis.num_styles, mixing)
