"""BEGAN (Berthelot, Schumm & Metz 2017, "BEGAN: Boundary Equilibrium Generative Adversarial Networks",
arXiv:1703.10717): the energies of real and fake images are kept in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ganforge.augmentations.augmentation import Augmentation
from ganforge.games.energies import EnergyGame
from ganforge.games.game import Batch, Terms, Turn
from ganforge.losses.loss import Loss
from ganforge.penalties.penalty import Penalty


class Equilibrium(Loss):
    """With energies e = -logit, real r and fake f, and k (section 3.4):

        L_D = E[e_r] - k · E[e_f]
        L_G = E[e_f]

    Attributes:
        k: the game's buffer, in [0, 1].
    """

    undecided_at_zero = False
    k: Tensor

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.k * fake_logits.mean() - real_logits.mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class BEGAN(EnergyGame):
    """An autoencoder as the discriminator, with L = E[e(x)] and L_G = E[e(G(z))] held at L_G = γ·L (section 3.4):

        k <- clamp(k + λ_k · (γ·L - L_G), 0, 1)   after each round, from k = 0
        M  = L + |γ·L - L_G|                      the measure of convergence, observed as `convergence`

    L is of the round's discriminator steps, L_G of its generator step, over the whole batch of all processes.

    Args:
        generator, penalties, augmentation: as in `Synthesis`.
        discriminator: `(images, labels) -> -energy (B,)`.
        gamma: γ in (0, 1], how diverse the fakes are.
        k_rate: λ_k, at least 0.

    Raises:
        ValueError: a number outside its range.
    """

    loss: Equilibrium
    k: Tensor
    convergence: Tensor
    energies: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        gamma: float = 0.5,
        k_rate: float = 0.001,
    ) -> None:
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma={gamma}: the ratio of energies must be above 0 and at most 1")
        if not k_rate >= 0:
            raise ValueError(f"k_rate={k_rate} must be at least 0")
        super().__init__(generator, discriminator, Equilibrium(), penalties, augmentation)
        self.gamma, self.k_rate = gamma, k_rate
        self.register_buffer("k", torch.tensor(0.0))
        self.register_buffer("convergence", torch.tensor(0.0))  # M of the last round
        # Sums of the round's micro-batches: of L and how many, of L_G and how many.
        self.register_buffer("energies", torch.zeros(2, 2))

    def discriminator_terms(self, batch: Batch, turn: Turn) -> Terms:
        self.loss.k = self.k.clone()  # the buffer changes before the graph is used no more
        return super().discriminator_terms(batch, turn)

    def averaged_over_ranks(self) -> list[Tensor]:
        return [self.energies, *super().averaged_over_ranks()]

    def _observe(self, turn: Turn, real_logits: Tensor, fake_logits: Tensor) -> None:
        super()._observe(turn, real_logits, fake_logits)
        turn.observe("k", self.k.clone())
        turn.observe("convergence", self.convergence.clone())
        self._add(0, real_logits)

    def _generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        self._add(1, fake_logits)
        return super()._generator_loss(real_logits, fake_logits)

    @torch.no_grad()
    def _add(self, row: int, logits: Tensor) -> None:
        self.energies[row] += torch.stack([-logits.mean(), logits.new_ones(())])

    @torch.no_grad()
    def after_generator_step(self) -> None:
        super().after_generator_step()
        real, fake = self.energies[:, 0] / self.energies[:, 1]
        balance = self.gamma * real - fake
        self.k.add_(self.k_rate * balance).clamp_(0, 1)
        self.convergence.copy_(real + balance.abs())
        self.energies.zero_()
