"""What games have in common whose discriminator gives an energy: low where an image is like the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganforge.games.game import Turn
from ganforge.games.synthesis import Synthesis, at_least_float32
from ganforge.losses.loss import Loss


class Margin(Loss):
    """With energies e = -logit, real r and fake f, and a margin m > 0 (Zhao et al. 2017, equations 1 and 2):

        L_D = E[e_r] + E[max(0, m - e_f)]
        L_G = E[e_f]

    Of energies alone: with logits of any size L_D has no lower bound.
    """

    undecided_at_zero = False

    def __init__(self, margin: float) -> None:
        if not margin > 0:
            raise ValueError(f"margin={margin} must be above 0")
        self.margin = margin

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (self.margin + fake_logits).relu().mean() - real_logits.mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class EnergyGame(Synthesis):
    """Synthesis without labels. Its discriminator has `judged(images)`: minus an energy of at least 0, and codes."""

    unsupervised = True
    takes_labels = False
    has_no_part_for = ("loss", "head")

    def _judge(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        judged: Any = self._compiled.get("judged", self.discriminator_side.judged)
        return [at_least_float32(tensor) for tensor in judged(images)]

    def compile_players(self) -> None:
        super().compile_players()
        judged: Any = self.discriminator_side.judged
        self._compiled = {
            "generator": self._compiled["generator"],
            "judged": torch.compile(judged),
        }

    def _observe(self, turn: Turn, real_logits: Tensor, fake_logits: Tensor) -> None:
        turn.observe("real_energy", -real_logits)
        turn.observe("fake_energy", -fake_logits)
