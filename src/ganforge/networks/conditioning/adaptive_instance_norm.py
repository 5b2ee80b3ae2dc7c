"""Adaptive instance norm (Huang & Belongie 2017, arXiv:1703.06868, equation 8) by a style of z and label, as StyleGAN's
(Karras et al. 2019, arXiv:1812.04948, equation 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganforge.networks.conditioning.conditioning import Conditioning
from ganforge.networks.layers.instance_norm import AdaptiveInstanceNorm


class InstanceNormConditioning(Conditioning):
    """Every norm takes the style w = [z, e(y)] with a learned vector e of `embedding_dim` numbers for each class.

    z is in the style because instance norm takes the size of each feature map away, and with it much of what z said.
    """

    def __init__(self, latent_dim: int, num_classes: int, embedding_dim: int = 32) -> None:
        super().__init__(latent_dim, num_classes)
        self.embedding = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        self.style_dim = latent_dim + (embedding_dim if num_classes else 0)

    def norm(self, channels: int) -> nn.Module:
        return AdaptiveInstanceNorm(channels, self.style_dim)

    def forward(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        style = z if self.embedding is None else torch.cat([z, self.embedding(labels)], dim=1)
        return z, style
