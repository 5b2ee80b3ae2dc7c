"""ReACGAN (Kang et al. 2021, "Rebooting ACGAN: Auxiliary Classifier GANs with Stable Training", arXiv:2111.01118)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ganforge.networks.heads.head import Finish, Head, plain


def data_to_data_cross_entropy(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, temperature: float, margin: float
) -> Tensor:
    """The D2D-CE loss, scalar: the mean over i of

        -log[ exp(pos(i)/τ) / (exp(pos(i)/τ) + Σ exp(neg(i, j)/τ) over j of another label) ]
        pos(i) = min(fᵢ·vᵢ - m, 0),  neg(i, j) = max(fᵢ·fⱼ - (1 - m), 0)

    Pairs that are near enough to their proxy, or far enough apart, teach nothing more.

    Args:
        embeddings: f (B, E) of unit length.
        proxies: v (B, E) of unit length: those of the samples' own labels.
        labels: int64 (B,).
        temperature: τ, above 0.
        margin: m, the paper's m_p; its m_n is 1 - m, as in the authors' code.
    """
    positive = ((embeddings * proxies).sum(dim=1, keepdim=True) - margin).clamp(max=0) / temperature
    negative = (embeddings @ embeddings.T - (1 - margin)).clamp(min=0) / temperature
    negative = negative.masked_fill(labels[:, None] == labels, -math.inf)
    return (torch.cat([positive, negative], dim=1).logsumexp(dim=1) - positive.squeeze(1)).mean()


class DataToData(Head):
    """An unconditional logit beside an embedding, near its label's proxy and far from images of other labels.

    Discriminator and generator add weight · `data_to_data_cross_entropy`, of real images and of fakes. Its sums are
    over what one process hands in: over a micro-batch, and over its share where several share one.

    Args:
        weight: factor of the term, λ.
        temperature: τ.
        margin: m.
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
        weight: float = 0.5,
        temperature: float = 0.5,
        margin: float = 0.98,
        embedding_dim: int = 512,
    ) -> None:
        super().__init__(features, num_classes, finish)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        if not 0 <= margin <= 1:
            raise ValueError(f"margin={margin}: similarities are cosines, so that it must be from 0 to 1")
        self.weight, self.temperature, self.margin = weight, temperature, margin
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
        term = data_to_data_cross_entropy(embeddings, proxies, labels, self.temperature, self.margin)
        return {"classification": self.weight * term}
