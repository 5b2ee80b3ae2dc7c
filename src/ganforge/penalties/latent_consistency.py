"""zCR (Zhao et al. 2021, "Improved Consistency Regularization for GANs", arXiv:2002.04724)."""

from __future__ import annotations

import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.consistency import inconsistency
from ganforge.penalties.penalty import GeneratorPenalty, Scene, checked_factor
from ganforge.schedules import Value


class LatentConsistency(GeneratorPenalty):
    """With T(z) = z + σ·N(0, I) (algorithm 2):

        discriminator: λ_dis · E[(D(G(z)) - D(G(T(z))))²]
        generator:    -λ_gen · E[‖G(z) - G(T(z))‖² / numbers of an image]

    D is to see no difference between neighbours, and G to make one.

    Args:
        weight: λ_gen.
        weight_discriminator: λ_dis, at least 0.
        sigma: σ, at least 0.
        every: see `Penalty`.
    """

    has_discriminator_term = True

    def __init__(
        self, weight: Value = 0.5, weight_discriminator: Value = 5.0, sigma: Value = 0.03, every: int = 1
    ) -> None:
        super().__init__(weight, every)
        self._weight_discriminator: Value = checked_factor("weight_discriminator", weight_discriminator)
        self._sigma = checked_factor("sigma", sigma)

    def forward(self, scene: Scene, draws: Draws) -> Tensor:
        return -self.weight * (scene.fake - scene.generate(self._near(scene.z, draws))).square().mean()

    def of_discriminator(self, scene: Scene, draws: Draws) -> Tensor:
        with torch.no_grad():
            neighbours = scene.generate(self._near(scene.z, draws))
        weight = self._now(self._weight_discriminator)
        return weight * inconsistency(scene.critic, scene.fake.detach(), neighbours)

    def _near(self, z: Tensor, draws: Draws) -> Tensor:
        return z + self._now(self._sigma) * draws.normal(*z.shape, device=z.device)
