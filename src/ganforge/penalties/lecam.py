"""LeCam regularisation (Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data",
arXiv:2104.03310).
"""

from __future__ import annotations

from torch import Tensor

from ganforge.penalties.moving_average import MovingAverage
from ganforge.penalties.penalty import LogitPenalty
from ganforge.schedules import Value


def lecam(real_logits: Tensor, fake_logits: Tensor, real_anchor: Tensor, fake_anchor: Tensor) -> Tensor:
    """E[(r - α_F)²] + E[(f - α_R)²] of logits r and f (B,), scalar: each near the other's moving average α."""
    return (real_logits - fake_anchor).square().mean() + (fake_logits - real_anchor).square().mean()


class LeCam(LogitPenalty):
    """λ · (E[(r - α_F)²] + E[(f - α_R)²]), with the moving averages α of earlier steps' logits (equation 5).

    Args:
        weight: λ. What fits depends on the loss and the size of its logits.
        decay: of the moving averages.
        every: see `Penalty`.
    """

    def __init__(self, weight: Value = 0.3, decay: float = 0.99, every: int = 1) -> None:
        super().__init__(weight, every)
        self.real_anchor, self.fake_anchor = MovingAverage(decay), MovingAverage(decay)

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        term = lecam(real_logits, fake_logits, self.real_anchor.value, self.fake_anchor.value)
        self.real_anchor.add(real_logits)
        self.fake_anchor.add(fake_logits)
        return self.weight * term * self.real_anchor.known

    def advance(self) -> None:
        self.real_anchor.advance()
        self.fake_anchor.advance()
