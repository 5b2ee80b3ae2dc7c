"""A non-linearity of the continuous signal that feature maps are samples of (Karras et al. 2021, arXiv:2106.12423).

Leaky ReLU makes frequencies that the sampling rate cannot hold. So maps are brought to a higher rate, bent there, and
brought back through a low-pass filter (section 2.2 of the paper). Rates and frequencies are in units of the canvas: a
rate s is s samples on its width. Sample i of n lies at (i + 1/2 - n/2) / s from the middle, at every rate.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.layers.activation import activate

# On the CPU, filters written as matrices take 0.2 to 0.9 of the time of convolutions by channel on maps of 36, 84 and
# 148, forward and backward, and 1.1 to 2 times as much on maps of 276: what a place costs grows with the size.
MATRIX_UP_TO = 160


def kaiser_low_pass(taps: int, cutoff: float, half_width: float, rate: float) -> Tensor:
    """A low-pass filter, float64 (taps,), of sum 1: sinc times Kaiser's window (appendix C.2 of the paper).

    The window's β follows from the attenuation A = 2.285 (taps - 1) π Δf + 7.95 dB that so many taps allow, Δf being
    the transition band's width as a part of rate / 2.

    Args:
        cutoff: f_c, the middle of the transition band.
        half_width: f_h, half of its width; both in units of `rate`.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * (2 * half_width / (rate / 2)) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    places = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    line = torch.sinc(2 * cutoff * places) * window
    return line / line.sum()


class FilteredActivation(nn.Module):
    """Up-sampling, `activate`, down-sampling; in one go to another sampling rate and another part of the plane.

    Both filters are separable and `support` input, or output, samples long. Beyond its samples the input counts as 0.
    Filters move with the module and are no part of a saved state.

    Args:
        in_size, in_rate: height and width of the input, and its sampling rate.
        in_cutoff, in_half_width: its band limit, as in `kaiser_low_pass`.
        out_size, out_rate, out_cutoff, out_half_width: likewise of the output, around the same middle.
        oversampling: how often the higher of both rates the non-linearity sees.
    """

    up: Tensor
    down: Tensor

    def __init__(
        self,
        *,
        in_size: int,
        in_rate: int,
        in_cutoff: float,
        in_half_width: float,
        out_size: int,
        out_rate: int,
        out_cutoff: float,
        out_half_width: float,
        support: int = 6,
        oversampling: int = 2,
    ) -> None:
        super().__init__()
        rate = oversampling * max(in_rate, out_rate)
        self.up_factor, self.down_factor = rate // in_rate, rate // out_rate
        up = kaiser_low_pass(support * self.up_factor, in_cutoff, in_half_width, rate) * self.up_factor
        down = kaiser_low_pass(support * self.down_factor, out_cutoff, out_half_width, rate)
        # As many samples in between as the output's filters reach, and those of all that the input's reach.
        between = self.down_factor * (out_size - 1) + len(down)
        spare = self.up_factor * (in_size - 1) + len(up) - between
        assert spare >= 0, (in_size, in_rate, out_size, out_rate)
        assert spare % 2 == 0, (in_size, in_rate, out_size, out_rate)
        self.crop = spare // 2
        self.as_matrix = in_size <= MATRIX_UP_TO
        if self.as_matrix:
            up = matrix(up, self.up_factor, in_size)[self.crop : self.crop + between]
            down = matrix(down, self.down_factor, out_size).T.contiguous()
        self.register_buffer("up", up.float(), persistent=False)
        self.register_buffer("down", down.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, in_size, in_size) -> (B, C, out_size, out_size)."""
        up, down = self.up.to(x.dtype), self.down.to(x.dtype)
        if self.as_matrix:
            x = activate(up @ (x @ up.T))
            return down @ (x @ down.T)
        channels = x.shape[1]
        up, down = up.expand(channels, 1, -1), down.expand(channels, 1, -1)
        for line, step, crop in (
            (up[:, :, None], (1, self.up_factor), (0, self.crop)),
            (up[..., None], (self.up_factor, 1), (self.crop, 0)),
        ):
            x = F.conv_transpose2d(x, line, stride=step, padding=crop, groups=channels)
        x = activate(x)
        x = F.conv2d(x, down[..., None], stride=(self.down_factor, 1), groups=channels)
        return F.conv2d(x, down[:, :, None], stride=(1, self.down_factor), groups=channels)


def matrix(line: Tensor, factor: int, size: int) -> Tensor:
    """Up-sampling of `size` samples by a filter, (factor (size - 1) + taps, size): in column i it begins at i · factor.

    Down-sampling by a filter equal from both ends is its transpose.
    """
    taps = torch.arange(factor * (size - 1) + len(line))[:, None] - factor * torch.arange(size)
    within = (taps >= 0) & (taps < len(line))
    return torch.where(within, line[taps.clamp(0, len(line) - 1)], 0.0)
