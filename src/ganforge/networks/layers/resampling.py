"""Feature maps to twice or half the size through a low-pass filter (Karras et al. 2019 and 2020; Zhang 2019).

Filters are separable: `taps` are one direction's, and are divided by their sum. All keep a constant map constant, but
for the borders, beyond which maps are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Filter(nn.Module):
    """The filter's taps, which move with the module and are no part of a saved state.

    Args:
        taps: of one direction; 1, 3, 3, 1 in StyleGAN, 1, 2, 1 for linear interpolation.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = (1, 3, 3, 1)) -> None:
        super().__init__()
        line = torch.tensor(taps, dtype=torch.float32)
        line = line / line.sum()
        self.register_buffer("kernel", torch.outer(line, line), persistent=False)
        self.taps = len(taps)

    def _of_channels(self, x: Tensor, factor: float = 1.0) -> Tensor:
        kernel = self.kernel.to(x.dtype) * factor
        return kernel.expand(x.shape[1], 1, self.taps, self.taps)

    def blur(self, x: Tensor, padding: int) -> Tensor:
        """x (B, C, H, W) -> (B, C, H + 2 padding + 1 - taps, the same with W)."""
        return F.conv2d(x, self._of_channels(x), padding=padding, groups=x.shape[1])

    def upsample(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, 2H, 2W): zeros between the places, then the filter, four times as strong."""
        padding = (self.taps - 1) // 2
        return F.conv_transpose2d(
            x,
            self._of_channels(x, 4.0),
            stride=2,
            padding=padding,
            output_padding=2 * padding + 2 - self.taps,
            groups=x.shape[1],
        )

    def downsample(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), H and W even -> (B, C, H/2, W/2): the filter, then every other place."""
        return F.conv2d(x, self._of_channels(x), stride=2, padding=(self.taps - 1) // 2, groups=x.shape[1])
