"""The largest slope alone (Zhou et al. 2019, "Lipschitz Generative Adversarial Nets", arXiv:1902.05687)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.input_gradient import input_gradient, interpolates
from ganforge.penalties.penalty import Critic, CriticPenalty
from ganforge.schedules import Value


def max_gradient(critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
    """max over x̂ of ‖∇ critic(x̂)‖², scalar, x̂ = ε·real + (1 - ε)·fake with one ε ~ U[0, 1) a sample.

    Arguments as in `CriticPenalty.forward`. The maximum is over all that is handed in: over a micro-batch, and over
    this process's share, where several share one.
    """
    return input_gradient(critic, interpolates(real, fake, draws)).square().sum(dim=1).amax()


class MaxGradient(CriticPenalty):
    """λ · max ‖∇ critic(x̂)‖² between real and fake; λ is `weight`."""

    forbids_batch_norm: ClassVar[bool] = True
    bounds_critic: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True

    def __init__(self, weight: Value = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        return self.weight * max_gradient(critic, real, fake, draws)
