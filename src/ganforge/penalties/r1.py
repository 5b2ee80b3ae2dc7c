"""R1 (Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", equation 9)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.input_gradient import input_gradient
from ganforge.penalties.penalty import Critic, CriticPenalty, checked_factor
from ganforge.schedules import Value


def r1(critic: Critic, real: Tensor) -> Tensor:
    """E[‖∇ₓ critic(x)‖²] at real x, scalar; `real` as in `CriticPenalty.forward`."""
    return input_gradient(critic, real).square().sum(dim=1).mean()


class R1(CriticPenalty):
    """γ/2 · E[‖∇ₓ critic(x)‖²] at real x.

    Args:
        gamma: γ, at least 0, or a schedule of it. The best value grows with the number of pixels.
        every: see `Penalty`.
    """

    forbids_batch_norm: ClassVar[bool] = True
    bounds_critic: ClassVar[bool] = True

    def __init__(self, gamma: Value, every: int = 1) -> None:
        super().__init__(checked_factor("gamma", gamma), every)

    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        return self.weight / 2 * r1(critic, real)
