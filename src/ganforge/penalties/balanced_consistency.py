"""bCR (Zhao et al. 2021, "Improved Consistency Regularization for GANs", arXiv:2002.04724)."""

from __future__ import annotations

from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.consistency import Transform, inconsistency
from ganforge.penalties.penalty import Critic, CriticPenalty, checked_factor
from ganforge.schedules import Value


class BalancedConsistency(CriticPenalty):
    """λ_real · E[(critic(x) - critic(T(x)))²] + λ_fake · E[(critic(G(z)) - critic(T(G(z))))²] (algorithm 1).

    Args:
        augmentation: T, an augmentation of images; one whose strength changes in time is taken at its start.
        weight: λ_real.
        weight_fake: λ_fake, at least 0.
        every: see `Penalty`.
    """

    def __init__(
        self, augmentation: Transform, weight: Value = 10.0, weight_fake: Value = 10.0, every: int = 1
    ) -> None:
        super().__init__(weight, every)
        self.augmentation = augmentation
        self._weight_fake = checked_factor("weight_fake", weight_fake)

    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        of_real = inconsistency(critic, real, self.augmentation(real, draws, 0))
        of_fake = inconsistency(critic, fake, self.augmentation(fake, draws, 0))
        return self.weight * of_real + self._now(self._weight_fake) * of_fake
