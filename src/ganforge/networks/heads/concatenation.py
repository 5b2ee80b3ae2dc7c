"""The label beside the features (Mirza & Osindero 2014, "Conditional Generative Adversarial Nets", arXiv:1411.1784)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ganforge.networks.heads.head import Finish, Head, plain


class Concatenation(Head):
    """logit = w · leaky_relu(W [h, e(y)] + b) + c with features h and a learned embedding e of the label.

    The hidden layer is what relates the label to the image: a linear layer alone would give f(image) + g(label).

    Args:
        label_dim: numbers of e(y).
        width: of the hidden layer.
    """

    def __init__(
        self, features: int, num_classes: int, finish: Finish = plain, label_dim: int = 32, width: int = 128
    ) -> None:
        super().__init__(features, num_classes, finish)
        self.label_embedding = finish(nn.Embedding(num_classes, label_dim)) if num_classes else None
        self.hidden = finish(nn.Linear(features + (label_dim if num_classes else 0), width))
        self.linear = finish(nn.Linear(width, 1))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        if self.label_embedding is not None:
            features = torch.cat([features, self.label_embedding(labels)], dim=1)
        logits: Tensor = self.linear(leaky_relu(self.hidden(features), 0.2)).squeeze(1)
        return logits
