"""The residual blocks of SNGAN, SAGAN and BigGAN (Miyato et al. 2018, arXiv:1802.05957, figure 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Conv(Protocol):
    """Makes a convolution that keeps the size of its input, initialised and normalised as its network does."""

    def __call__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True
    ) -> nn.Conv2d: ...


Norm = Callable[[int], nn.Module]
"""Makes a norm over so many channels, `(features, condition) -> features`."""


class UpBlock(nn.Module):
    """x -> upsample(1x1(x)) + 3x3(relu(norm(3x3(upsample(relu(norm(x))))))), to the nearest, twice the size.

    The 1x1 convolution commutes with the upsampling and is a quarter of the work before it.
    """

    def __init__(self, in_channels: int, out_channels: int, conv: Conv, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = conv(in_channels, out_channels, 3)
        self.norm2 = norm(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.shortcut = conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, 2H, 2W); `condition` is what the norms take."""
        h: Tensor = F.relu(self.norm1(x, condition), inplace=True)
        h = self.conv1(F.interpolate(h, scale_factor=2.0))
        h = F.relu(self.norm2(h, condition), inplace=True)
        h = self.conv2(h)
        return h + F.interpolate(self.shortcut(x), scale_factor=2.0)


class DownBlock(nn.Module):
    """x -> 1x1(pool(x)) + pool(3x3(relu(3x3(relu(x))))).

    Without `downsample` there is no pooling, and no 1x1 convolution where the channels stay. The `first`
    block, whose input is the image, leaves out the ReLU in front. SNGAN's authors pool after the 1x1 convolution in
    the other blocks; the two commute, and this order is a quarter of the work.

    Args:
        wide: the first 3x3 convolution already gives `out_channels`, as SAGAN and BigGAN have it; otherwise, but in
            the first block, the second one does.
    """

    def __init__(
        self, in_channels: int, out_channels: int, conv: Conv, *, downsample: bool, first: bool, wide: bool
    ) -> None:
        super().__init__()
        hidden = out_channels if first or wide else in_channels
        self.first = first
        self.downsample = downsample
        self.conv1 = conv(in_channels, hidden, 3)
        self.conv2 = conv(hidden, out_channels, 3)
        self.shortcut: nn.Module = nn.Identity()
        if downsample or in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, 1)

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.downsample else x

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, H, W) -> (B, out_channels, H, W), or half of H and W."""
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2(F.relu(h, inplace=True))
        shortcut: Tensor = self.shortcut(self.pool(x))
        return self.pool(h) + shortcut
