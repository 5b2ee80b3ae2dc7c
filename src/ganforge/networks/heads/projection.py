"""The projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637); without classes a linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from ganforge.networks.heads.head import Finish, Head, plain


class Projection(Head):
    """logit = w · h + b + e(y) · h with features h and a learned embedding e of the label (equation 3).

    Args:
        bias: whether there is a b.
    """

    def __init__(self, features: int, num_classes: int, finish: Finish = plain, bias: bool = True) -> None:
        super().__init__(features, num_classes, finish)
        self.linear = finish(nn.Linear(features, 1, bias=bias))
        self.label_embedding = finish(nn.Embedding(num_classes, features)) if num_classes else None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.linear(features).squeeze(1)
        if self.label_embedding is not None:
            logits = logits + (self.label_embedding(labels) * features).sum(dim=1)
        return logits
