"""Self-attention over the places of a feature map (Zhang et al. 2019, SAGAN, arXiv:1805.08318)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.layers.residual import Conv


class SelfAttention(nn.Module):
    """x + γ · W_v Σ_i softmax_i(<W_g x_j, W_f x_i>) W_h x_i at each place j, with γ = 0 at first (equations 1 to 3).

    As in the authors' code and in BigGAN, queries and keys have C / 8 channels, values C / 2, and keys and values are
    max-pooled by 2 in each direction: a quarter of the products.
    """

    def __init__(self, channels: int, conv: Conv) -> None:
        super().__init__()
        self.query = conv(channels, max(1, channels // 8), 1, bias=False)
        self.key = conv(channels, max(1, channels // 8), 1, bias=False)
        self.value = conv(channels, max(1, channels // 2), 1, bias=False)
        self.out = conv(max(1, channels // 2), channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), H and W even -> (B, C, H, W)."""
        queries = self.query(x).flatten(2)
        keys = F.max_pool2d(self.key(x), 2).flatten(2)
        values = F.max_pool2d(self.value(x), 2).flatten(2)
        # Written out: PyTorch's fused attention cannot be differentiated twice, as gradient penalties need.
        weights = torch.softmax(queries.transpose(1, 2) @ keys, dim=2)
        attended: Tensor = self.out((values @ weights.transpose(1, 2)).view(*values.shape[:2], *x.shape[2:]))
        return x + self.gamma * attended


def attention_index(attention: int, sizes: Sequence[int], *, network: str) -> int | None:
    """Which of a network's feature maps, of these heights, self-attention follows; None with `attention` 0.

    Raises:
        ValueError: `attention` is none of the sizes.
    """
    if attention == 0:
        return None
    if attention not in sizes:
        raise ValueError(
            f"attention={attention}: the feature maps of {network} here are {', '.join(map(str, sorted(sizes)))} high "
            "(0 for no attention)"
        )
    return sizes.index(attention)
