"""Adaptive instance norm (Huang & Belongie 2017, arXiv:1703.06868)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class AdaptiveInstanceNorm(nn.Module):
    """(1 + U w) · (x - mean(x)) / std(x) + V w + b with learned U, V and b; mean and std are over H and W of each map.

    Args:
        channels: C.
        style_dim: length of w.
    """

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.gain = nn.Linear(style_dim, channels, bias=False)
        self.bias = nn.Linear(style_dim, channels)
        nn.init.zeros_(self.bias.bias)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        """features (B, C, H, W) with H·W > 1, style (B, style_dim) -> (B, C, H, W)."""
        normalized = F.instance_norm(features)
        # Under autocast norms of bfloat16 are float32: what follows should not be.
        gain: Tensor = 1 + self.gain(style)
        bias: Tensor = self.bias(style)
        return bias[:, :, None, None].addcmul(normalized, gain[:, :, None, None])
