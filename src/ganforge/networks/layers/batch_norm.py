"""Batch norm with a gain and a bias for each sample, from its label or from a vector; and norms to choose from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

NormName = Literal["batch", "layer", "none"]


def norm2d(norm: NormName, channels: int) -> list[nn.Module]:
    """The norm of that name over (B, C, H, W): `layer` is over C, H, W, with a gain and a bias a channel."""
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]


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
        """features (B, C, H, W), labels int64 (B,) -> (B, C, H, W)."""
        normalized: Tensor = self.norm(features)
        if self.gain is None or self.bias is None:
            return normalized
        # Under autocast the features are bfloat16; with a float32 gain all that follows would be float32 again.
        gain: Tensor = self.gain(labels).to(normalized.dtype)
        bias: Tensor = self.bias(labels).to(normalized.dtype)
        return bias[:, :, None, None].addcmul(normalized, gain[:, :, None, None])


class ModulatedBatchNorm(nn.Module):
    """(1 + U c) · batch norm + V c with learned U and V and a vector c of each sample (arXiv:1809.11096, appendix B).

    Args:
        channels: C.
        condition_dim: length of c.
        finish: what the network does to the two linear layers.
    """

    def __init__(self, channels: int, condition_dim: int, finish: Callable[[nn.Linear], nn.Linear]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = finish(nn.Linear(condition_dim, channels, bias=False))
        self.bias = finish(nn.Linear(condition_dim, channels, bias=False))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """features (B, C, H, W), condition (B, condition_dim) -> (B, C, H, W)."""
        normalized: Tensor = self.norm(features)
        gain: Tensor = 1 + self.gain(condition)
        bias: Tensor = self.bias(condition)
        return bias[:, :, None, None].addcmul(normalized, gain[:, :, None, None])
