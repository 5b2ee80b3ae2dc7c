"""The dual of the earth mover's distance (Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganforge.losses.loss import Loss


class Wasserstein(Loss):
    """With r the real and f the fake logits, of a critic that must be Lipschitz:

    L_D = E[f] - E[r]
    L_G = -E[f]
    """

    needs_lipschitz: ClassVar[bool] = True
    undecided_at_zero = False

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
