"""MHGAN (Kavalerov, Czaja & Chellappa 2021, "A Multi-Class Hinge Loss for Conditional GANs", arXiv:1912.04216)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ganforge.networks.heads.head import Finish, Head, plain


def multi_hinge_loss(scores: Tensor, classes: Tensor) -> Tensor:
    """E[max(0, 1 - C_y + max over j ≠ y of C_j)], scalar (Crammer & Singer's hinge).

    Args:
        scores: C (B, K + 1).
        classes: y, int64 (B,) in [0, K].
    """
    own = scores.gather(1, classes[:, None]).squeeze(1)
    others = scores.scatter(1, classes[:, None], -math.inf).amax(dim=1)
    return relu(1 - own + others).mean()


class MultiHinge(Head):
    """K + 1 scores C, the last one for fakes, and a hinge loss over them in the place of the adversarial one.

    With `multi_hinge_loss` H and features h:

        discriminator: H(C(h_real), y) + H(C(h_fake), K)
        generator:     H(C(h_fake), y)

    Its logit, which is logged and which penalties see, is C_y - C_K: above 0 where an image is y rather than fake.
    """

    has_terms = True
    needs_classes = True
    adversarial_as = "Hinge"

    def __init__(self, features: int, num_classes: int, finish: Finish = plain) -> None:
        super().__init__(features, num_classes, finish)
        self.num_classes = num_classes
        self.scores = finish(nn.Linear(features, num_classes + 1))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        scores: Tensor = self.scores(features)
        return scores.gather(1, labels[:, None]).squeeze(1) - scores[:, -1]

    def discriminator_terms(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        as_fake = torch.full_like(labels, self.num_classes)
        term = multi_hinge_loss(self.scores(real), labels) + multi_hinge_loss(self.scores(fake), as_fake)
        return {"adversarial": term}

    def generator_terms(self, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"adversarial": multi_hinge_loss(self.scores(fake), labels)}
