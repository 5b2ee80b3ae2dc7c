"""Real against fake in pairs (Jolicoeur-Martineau 2018, "The relativistic discriminator": RSGAN or RpGAN)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from ganforge.losses.loss import Loss


class Relativistic(Loss):
    """With r the real and f the fake logits, paired as they come, both (B,):

    L_D = -E[log sigmoid(r - f)] = E[softplus(-(r - f))]
    L_G = -E[log sigmoid(f - r)] = E[softplus(-(f - r))]
    """

    generator_uses_real: ClassVar[bool] = True
    undecided_at_zero = False

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        assert real_logits.shape == fake_logits.shape, (real_logits.shape, fake_logits.shape)
        return softplus(fake_logits - real_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None, "generator_uses_real: the game computes the real logits"
        return self.discriminator_loss(fake_logits, real_logits)
