"""f-GAN (Nowozin, Cseke & Tomioka 2016, "f-GAN: Training Generative Neural Samplers using Variational Divergence
Minimization", arXiv:1606.00709).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import softplus

from ganforge.losses.loss import Loss

Divergence = Literal["kl", "reverse_kl", "pearson", "neyman", "squared_hellinger", "jensen_shannon"]

STEEPEST = 10.0


def exp(x: Tensor) -> Tensor:
    """e^x up to x = 10 and its tangent from there on, which stays finite."""
    return x.clamp(max=STEEPEST).exp() * (1 + (x - STEEPEST).clamp(min=0))


# The output activation g_f(v), and f*(g_f(v)) with f* the conjugate, by v (tables 2 and 6).
PAIRS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "kl": (lambda v: v, lambda v: exp(v - 1)),
    "reverse_kl": (lambda v: -exp(-v), lambda v: v - 1),
    "pearson": (lambda v: v, lambda v: v.square() / 4 + v),
    "neyman": (lambda v: 1 - exp(-v), lambda v: 2 - 2 * exp(-v / 2)),
    "squared_hellinger": (lambda v: 1 - exp(-v), lambda v: exp(v) - 1),
    "jensen_shannon": (lambda v: math.log(2) - softplus(-v), lambda v: softplus(v) - math.log(2)),
}


class FDivergence(Loss):
    """With r the real and f the fake logits, g the divergence's output activation and c its conjugate:

        L_D = -E[g(r)] + E[c(g(f))]
        L_G = -E[c(g(f))], or -E[g(f)] where not `saturating`

    Args:
        divergence: kl, reverse_kl, pearson, neyman, squared_hellinger or jensen_shannon.
        saturating: the generator minimises the bound itself (equation 6); otherwise the substitute of section 3.2, as
            `NonSaturating` is one of `Minimax`.

    Raises:
        ValueError: a divergence that is not known.
    """

    def __init__(self, divergence: Divergence = "kl", saturating: bool = True) -> None:
        if divergence not in PAIRS:
            raise ValueError(f"divergence={divergence}: it can be {', '.join(get_args(Divergence))}")
        self.divergence = divergence
        self.saturating = saturating
        self._activation, self._conjugate = PAIRS[divergence]
        # Real and fake are as likely where g(v) = f'(1), which is at v = 0 but for this one.
        self.middle = 1.0 if divergence == "kl" else 0.0
        self.undecided_at_zero = divergence != "kl"

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self._conjugate(fake_logits).mean() - self._activation(real_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        term = self._conjugate(fake_logits) if self.saturating else self._activation(fake_logits)
        return -term.mean()
