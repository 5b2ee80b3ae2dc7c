"""Feature matching (Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.penalty import GeneratorPenalty, Scene
from ganforge.schedules import Value


def feature_distance(real: Tensor, fake: Tensor) -> Tensor:
    """‖E f(x) - E f(G(z))‖² of features (B, D), scalar.

    The means are of what is handed in: of a micro-batch, and of this process's share, where several share one.
    """
    return (real.mean(dim=0) - fake.mean(dim=0)).square().sum()


class FeatureMatching(GeneratorPenalty):
    """λ · ‖E f(x) - E f(G(z))‖² with the discriminator's features f (section 3.1); λ is `weight`.

    Beside the adversarial term, where the paper has it in that one's place.
    """

    needs_real = True
    of_whole_batch: ClassVar[bool] = True

    def __init__(self, weight: Value = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def forward(self, scene: Scene, draws: Draws) -> Tensor:
        with torch.no_grad():
            real = scene.features(scene.real)
        return self.weight * feature_distance(real, scene.features(scene.fake))
