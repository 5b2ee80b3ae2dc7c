"""Minibatch discrimination (Salimans et al. 2016, arXiv:1606.03498, section 3.2): shows a critic how alike all are."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ganforge.networks.heads.head import Finish, plain


class MinibatchDiscrimination(nn.Module):
    """Adds `kernels` features, o(h_i)_k = Σ over j ≠ i of exp(-‖M_ik - M_jk‖₁), with M_i = T h_i of `kernels` rows.

    The sum is over what is handed in: over a micro-batch, and over a process's share where several share one.

    Args:
        features: D.
        kernels: rows of M.
        dim: numbers in a row.
        finish: what the network does to a layer.
    """

    mixes_samples: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True

    def __init__(self, features: int, kernels: int, dim: int, finish: Finish = plain) -> None:
        super().__init__()
        self.kernels = kernels
        self.transform = finish(nn.Linear(features, kernels * dim, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """features (B, D) -> (B, D + kernels)."""
        rows = self.transform(features).unflatten(1, (self.kernels, -1))
        distances = (rows[:, None] - rows).abs().sum(dim=3)  # (B, B, kernels)
        nearness = torch.exp(-distances).sum(dim=1) - 1  # but to itself, which it is at no distance from
        return torch.cat([features, nearness], dim=1)
