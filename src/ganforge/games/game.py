"""What every game is: two players who alternate, the terms each minimises, and how to sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from ganforge.draws import Draws

Batch = Mapping[str, Tensor]
Terms = dict[str, Tensor]


@dataclass
class Turn:
    """The moment of play, handed to the game for every term it computes.

    Attributes:
        images_seen: real images shown to the discriminator before this round, all ranks together.
        round: the round's index; a round is n discriminator updates and one generator update.
        draws: this round's random numbers.
        last_step: whether this is the round's last discriminator step, or its generator step.
        observations: what the game wants the mean of logged beside its terms, detached tensors by name.
    """

    images_seen: int
    round: int
    draws: Draws
    last_step: bool = True
    observations: dict[str, Tensor] = field(default_factory=dict)

    def observe(self, name: str, value: Tensor) -> None:
        """Notes `value`, a tensor of any shape whose mean is to be logged."""
        value = value.detach()
        # Means are taken together for many rounds, which hold on to what is small meanwhile.
        self.observations[name] = value if value.numel() <= 1024 else value.float().mean()


class Game(nn.Module, ABC):
    """Two sides and their terms. A game knows no optimizer, device, logging or training loop.

    Everything the generator's optimizer steps lives in `generator_side`, everything the discriminator's steps in
    `discriminator_side`: a game with an encoder or with two generators puts them in an `nn.ModuleDict`.
    """

    unsupervised: ClassVar[bool] = False
    """Plays without labels where the data has them, unless conditional=true asks for them."""

    takes_labels: ClassVar[bool] = True
    """Whether conditional=true has a meaning."""

    has_no_part_for: ClassVar[tuple[str, ...]] = ()
    """Groups of settings that other games take and this one does not."""

    generator_side: nn.Module
    discriminator_side: nn.Module

    @property
    def generator_uses_real(self) -> bool:
        """Whether the generator's terms look at the batch; where not, it may be called with any batch of that size."""
        return True

    @abstractmethod
    def discriminator_terms(self, batch: Batch, turn: Turn) -> Terms:
        """Named scalars whose sum the discriminator side minimises; no gradient reaches the generator side."""

    @abstractmethod
    def generator_terms(self, batch: Batch, turn: Turn) -> Terms:
        """Named scalars whose sum the generator side minimises."""

    def averaged_over_ranks(self) -> list[Tensor]:
        """Buffers that each process gathers over its own share of the batch, and of which all need the mean.

        Those that a module inside the game names in its `averaged_over_ranks`; floating-point, and changed in place.
        """
        return [
            getattr(module, name)
            for module in self.modules()
            if module is not self
            for name in getattr(module, "averaged_over_ranks", ())
        ]

    def after_discriminator_step(self) -> None:
        """Called after each step of the discriminator's optimizer: constraints on weights go here."""
        return None

    def after_generator_step(self) -> None:
        """Called after each step of the generator's optimizer."""
        return None

    @abstractmethod
    def sample(self, draws: Draws, labels: Tensor, generator_side: nn.Module | None = None) -> Tensor:
        """Samples for int64 `labels` (B,): float32 images (B, C, H, W) in [-1, 1], or vectors (B, D).

        Args:
            generator_side: weights to use in place of the game's own, such as their moving average.
        """

    def logits_of_real(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """What the discriminator makes of real images as they are, without gradient, for those who watch it.

        Args:
            images: float32 (B, C, H, W) in [-1, 1], or vectors (B, D).
            labels: int64 (B,).

        Returns:
            Logits (n,), higher for more real; None in games without any.
        """
        return None

    def logits_of_generated(self, draws: Draws, labels: Tensor) -> Tensor | None:
        """Likewise of samples for `labels`, by the weights that are trained."""
        return None

    def pictures(
        self,
        draws: Draws,
        labels: Tensor,
        generator_side: nn.Module | None = None,
        real: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What else there is to look at, by name: float32 images (rows, columns, C, H, W) in [-1, 1].

        Args:
            labels: int64 (n,); n is how many rows, or columns, there shall be.
            generator_side: as in `sample`.
            real: images (n, C, H, W) of the data with these labels; None where they are not at hand.
        """
        return {}
