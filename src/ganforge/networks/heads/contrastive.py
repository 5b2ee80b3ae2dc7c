"""ContraGAN (Kang & Park 2020, "Contrastive Learning for Conditional Image Generation", arXiv:2006.12681)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ganforge.networks.heads.head import Finish, Head, plain


def contrastive_loss(embeddings: Tensor, proxies: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The 2C loss (equation 8), scalar: the mean over i of

        -log[ (exp(lᵢ·pᵢ/t) + Σ exp(lᵢ·lₖ/t) over k ≠ i of i's label) / (exp(lᵢ·pᵢ/t) + Σ exp(lᵢ·lₖ/t) over k ≠ i) ]

    Args:
        embeddings: l (B, E) of unit length.
        proxies: p (B, E) of unit length: those of the samples' own labels.
        labels: int64 (B,).
        temperature: t, above 0.
    """
    to_proxy = (embeddings * proxies).sum(dim=1, keepdim=True) / temperature
    to_others = embeddings @ embeddings.T / temperature
    to_others = to_others.masked_fill(
        torch.eye(len(labels), dtype=torch.bool, device=labels.device), -math.inf
    )
    to_alike = to_others.masked_fill(labels[:, None] != labels, -math.inf)
    near = torch.cat([to_proxy, to_alike], dim=1).logsumexp(dim=1)
    all_ = torch.cat([to_proxy, to_others], dim=1).logsumexp(dim=1)
    return (all_ - near).mean()


class Contrastive(Head):
    """An unconditional logit beside an embedding, near its label's proxy and its label's other images.

    Discriminator and generator add weight · `contrastive_loss`, of real images and of fakes. Its sums are over what
    one process hands in: over a micro-batch, and over its share where several share one.

    Args:
        weight: factor of the term, λ.
        temperature: t.
        embedding_dim: E.
    """

    has_terms = True
    needs_classes = True

    of_whole_batch: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        num_classes: int,
        finish: Finish = plain,
        weight: float = 1.0,
        temperature: float = 1.0,
        embedding_dim: int = 512,
    ) -> None:
        super().__init__(features, num_classes, finish)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        self.weight, self.temperature = weight, temperature
        self.linear = finish(nn.Linear(features, 1))
        self.embedding = finish(nn.Linear(features, embedding_dim))
        self.proxies = finish(nn.Embedding(num_classes, embedding_dim))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.linear(features).squeeze(1)
        return logits

    def discriminator_terms(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.generator_terms(real, labels)

    def generator_terms(self, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        embeddings = normalize(self.embedding(fake), dim=1)
        proxies = normalize(self.proxies(labels), dim=1)
        return {"contrastive": self.weight * contrastive_loss(embeddings, proxies, labels, self.temperature)}
