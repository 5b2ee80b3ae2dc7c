"""Noise of a learned strength, added to all channels (Karras et al. 2019, StyleGAN, arXiv:1812.04948, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """x + strength · noise of N(0, 1), one number a place, the strength 0 at first.

    Noise is drawn from PyTorch's global generator in training mode, and in evaluation mode one pattern that is the
    layer's own: what a generator makes of a z is then a function of that z alone.

    Args:
        size: height and width of the feature maps.
    """

    pattern: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("pattern", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, size, size) -> the same."""
        noise = self.pattern
        if self.training:
            noise = torch.randn(len(x), *noise.shape[1:], dtype=noise.dtype, device=noise.device)
        return x + (noise * self.strength).to(x.dtype)
