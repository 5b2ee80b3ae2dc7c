"""The zero-sum game of the first GAN (Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from ganforge.losses.loss import Loss


class Minimax(Loss):
    """With D = sigmoid(logit), r the real and f the fake logits:

        L_D = -E[log D(x)] - E[log(1 - D(G(z)))] = E[softplus(-r)] + E[softplus(f)]
        L_G =  E[log(1 - D(G(z)))]               = -E[softplus(f)]

    G's gradient vanishes where D is sure of itself: `NonSaturating` is the form that trains.
    """

    estimates_density_ratio: ClassVar[bool] = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -softplus(fake_logits).mean()
