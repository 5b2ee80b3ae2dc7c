"""The label's embedding beside z, and plain batch norm (Mirza & Osindero 2014, arXiv:1411.1784)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganforge.networks.conditioning.conditioning import Conditioning
from ganforge.networks.layers.batch_norm import ConditionalBatchNorm


class Concatenation(Conditioning):
    """The first layer takes [z, e(y)] with a learned vector e of `embedding_dim` numbers for each class."""

    def __init__(self, latent_dim: int, num_classes: int, embedding_dim: int = 32) -> None:
        super().__init__(latent_dim, num_classes)
        self.embedding = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        self.features = latent_dim + (embedding_dim if num_classes else 0)

    def norm(self, channels: int) -> nn.Module:
        return ConditionalBatchNorm(channels, num_classes=0)

    def forward(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], dim=1)
        return z, labels
