"""DRAGAN's penalty: slope one near the data (Kodali et al. 2017, "On Convergence and Stability of GANs")."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.input_gradient import distance_of_norm_from_one
from ganforge.penalties.penalty import Critic, CriticPenalty
from ganforge.schedules import Value


def dragan(critic: Critic, real: Tensor, draws: Draws) -> Tensor:
    """E[(‖∇ critic(x + α·δ)‖₂ - 1)²] at real x, scalar; `real` as in `CriticPenalty.forward`.

    δ = σ/2 · U[0, 1) for each number of x, σ the deviation of the batch, and one α ~ U[0, 1) a sample: the
    authors' code; the paper's text has a δ ~ N(0, cI). σ is over all numbers handed in: over this process's
    share, where several share a batch.
    """
    delta = 0.5 * real.std(correction=0) * draws.uniform(*real.shape, device=real.device)
    alpha = draws.uniform(len(real), *[1] * (real.ndim - 1), device=real.device)
    return distance_of_norm_from_one(critic, real + alpha * delta)


class Dragan(CriticPenalty):
    """λ · E[(‖∇ critic(x + α·δ)‖₂ - 1)²] around real x; λ is `weight`, 10 in the paper."""

    forbids_batch_norm: ClassVar[bool] = True
    bounds_critic: ClassVar[bool] = True
    of_whole_batch: ClassVar[bool] = True

    def __init__(self, weight: Value = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        return self.weight * dragan(critic, real, draws)
