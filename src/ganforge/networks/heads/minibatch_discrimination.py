"""Minibatch discrimination before the logit (Salimans et al. 2016, arXiv:1606.03498, section 3.2)."""

from __future__ import annotations

from torch import Tensor

from ganforge.networks.heads.head import Finish, Head, plain
from ganforge.networks.heads.projection import Projection
from ganforge.networks.layers.minibatch_discrimination import MinibatchDiscrimination


class MinibatchDiscriminationHead(Head):
    """A projection, without classes a linear layer, of features with how alike those of the batch are.

    Args:
        kernels, dim: see `MinibatchDiscrimination`.
    """

    mixes_samples = True

    def __init__(
        self, features: int, num_classes: int, finish: Finish = plain, kernels: int = 50, dim: int = 5
    ) -> None:
        super().__init__(features, num_classes, finish)
        self.nearness = MinibatchDiscrimination(features, kernels, dim, finish)
        self.projection = Projection(features + kernels, num_classes, finish)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.projection(self.nearness(features), labels)
        return logits
