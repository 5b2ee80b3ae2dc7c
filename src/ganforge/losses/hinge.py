"""The hinge loss (Lim & Ye 2017, "Geometric GAN"; Miyato et al. 2018, "Spectral Normalization for GANs")."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from ganforge.losses.loss import Loss


class Hinge(Loss):
    """With r the real and f the fake logits:

    L_D = E[max(0, 1 - r)] + E[max(0, 1 + f)]
    L_G = -E[f]
    """

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
