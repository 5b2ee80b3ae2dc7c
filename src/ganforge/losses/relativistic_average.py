"""Each side against the other's mean (Jolicoeur-Martineau 2018, "The relativistic discriminator", RaSGAN)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from ganforge.losses.loss import Loss


class RelativisticAverage(Loss):
    """With r the real and f the fake logits, D(r) = sigmoid(r - E[f]) and D(f) = sigmoid(f - E[r]):

        L_D = -E[log D(r)] - E[log(1 - D(f))] = E[softplus(-(r - E[f]))] + E[softplus(f - E[r])]
        L_G = -E[log D(f)] - E[log(1 - D(r))] = E[softplus(-(f - E[r]))] + E[softplus(r - E[f])]

    The inner means are of the logits handed in: of this process's share, where several share a batch.
    """

    generator_uses_real: ClassVar[bool] = True
    undecided_at_zero = False
    of_whole_batch: ClassVar[bool] = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real_above_fake = real_logits - fake_logits.mean()
        fake_above_real = fake_logits - real_logits.mean()
        return softplus(-real_above_fake).mean() + softplus(fake_above_real).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None, "generator_uses_real: the game computes the real logits"
        return self.discriminator_loss(fake_logits, real_logits)
