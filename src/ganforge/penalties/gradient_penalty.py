"""Slope one between real and fake (Gulrajani et al. 2017, "Improved Training of Wasserstein GANs")."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.input_gradient import distance_of_norm_from_one, interpolates
from ganforge.penalties.penalty import Critic, CriticPenalty
from ganforge.schedules import Value


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
    """E[(‖∇ critic(x̂)‖₂ - 1)²], x̂ = ε·real + (1 - ε)·fake with one ε ~ U[0, 1) a sample; scalar, two-sided.

    Arguments as in `CriticPenalty.forward`.
    """
    return distance_of_norm_from_one(critic, interpolates(real, fake, draws))


class GradientPenalty(CriticPenalty):
    """λ · E[(‖∇ critic(x̂)‖₂ - 1)²] between real and fake (equation 3); λ is `weight`, 10 in the paper."""

    forbids_batch_norm: ClassVar[bool] = True
    bounds_critic: ClassVar[bool] = True

    def __init__(self, weight: Value = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        return self.weight * gradient_penalty(critic, real, fake, draws)
