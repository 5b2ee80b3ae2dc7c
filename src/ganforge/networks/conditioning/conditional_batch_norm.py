"""A gain and a bias of every class in each batch norm (Dumoulin et al. 2017, arXiv:1610.07629; in GANs Miyato & Koyama
2018, arXiv:1802.05637).
"""

from __future__ import annotations

from torch import Tensor, nn

from ganforge.networks.conditioning.conditioning import Conditioning
from ganforge.networks.layers.batch_norm import ConditionalBatchNorm


class BatchNormConditioning(Conditioning):
    """Batch norm, then gain[y] and bias[y]; without classes plain batch norm."""

    def norm(self, channels: int) -> nn.Module:
        return ConditionalBatchNorm(channels, self.num_classes)

    def forward(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return z, labels
