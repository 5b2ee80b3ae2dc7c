"""CR-GAN (Zhang et al. 2020, "Consistency Regularization for Generative Adversarial Networks", arXiv:1910.12027)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.penalty import Critic, CriticPenalty
from ganforge.schedules import Value

Transform = Callable[[Tensor, Draws, int], Tensor]
"""An augmentation: (images, draws, images seen so far) -> images of the same shape."""


def inconsistency(critic: Critic, images: Tensor, changed: Tensor) -> Tensor:
    """E[(critic(x) - critic(T(x)))²] of images x and T(x), scalar."""
    return (critic(images) - critic(changed)).square().mean()


class Consistency(CriticPenalty):
    """λ · E[(critic(x) - critic(T(x)))²] at real x (equation 3 at the last layer, as in the paper).

    Args:
        augmentation: T, an augmentation of images; one whose strength changes in time is taken at its start.
        weight: λ.
        every: see `Penalty`.
    """

    def __init__(self, augmentation: Transform, weight: Value = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)
        self.augmentation = augmentation

    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        return self.weight * inconsistency(critic, real, self.augmentation(real, draws, 0))
