"""Regression of logits to targets (Mao et al. 2017, "Least Squares Generative Adversarial Networks")."""

from __future__ import annotations

from torch import Tensor

from ganforge.losses.loss import Loss


class LeastSquares(Loss):
    """With r the real and f the fake logits:

        L_D = E[(r - b)²] / 2 + E[(f - a)²] / 2
        L_G = E[(f - c)²] / 2

    Args:
        a: target of D for fakes.
        b: target of D for real images.
        c: what G wants D to say of fakes. (a, b, c) = (0, 1, 1) is the paper's 0-1 coding; with (-1, 1, 0),
            where b - c = 1 and b - a = 2, the game minimises a Pearson χ² divergence.
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        self.a = a
        self.b = b
        self.c = c
        self.middle = (a + b) / 2
        self.undecided_at_zero = a + b == 0

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return ((real_logits - self.b).square().mean() + (fake_logits - self.a).square().mean()) / 2

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return (fake_logits - self.c).square().mean() / 2
