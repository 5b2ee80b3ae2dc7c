"""What a penalty is: a weight, how often it is due, and one of three ways to act on the discriminator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from ganforge.draws import Draws

Critic = Callable[[Tensor], Tensor]
"""Images (B, C, H, W), or vectors (B, D), to logits (B,): the discriminator with its labels bound."""


class Penalty(nn.Module):
    """The common part; subclass one of the three below.

    Args:
        weight: factor of the scalar, at least 0.
        every: evaluate the penalty in each `every`-th round only, at least 1. Who calls it scales the scalar
            by `every`, so that its mean over rounds stays the same (lazy regularisation, Karras et al. 2020).

    Raises:
        ValueError: a weight that is negative or not finite, or `every` below 1.
    """

    forbids_batch_norm: ClassVar[bool] = False
    """Reads the gradient of each sample's logit, which batch norm would mix with the others'."""

    bounds_critic: ClassVar[bool] = False
    """Holds the critic's slope, as losses with `needs_lipschitz` require."""

    of_whole_batch: ClassVar[bool] = False
    """Not a mean over samples: several processes, each with its share, do not make what one does."""

    def __init__(self, weight: float = 1.0, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every}: a penalty is due each `every`-th round; give 1 (each) or more")
        self.weight = checked_factor("weight", weight)
        self.every = every


class CriticPenalty(Penalty, ABC):
    """A scalar read off the critic's values around samples."""

    @abstractmethod
    def forward(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
        """The penalty, `weight` included and `every` not.

        Args:
            critic: images to logits (B,), differentiable twice.
            real, fake: float32 (B, C, H, W) or (B, D), the same shape; no gradient flows back into them.
            draws: the round's randomness.
        """


class ParameterPenalty(Penalty, ABC):
    """A scalar read off the discriminator's parameters."""

    @abstractmethod
    def forward(self, discriminator: nn.Module) -> Tensor:
        """The penalty, `weight` included and `every` not."""


class Projection(Penalty, ABC):
    """No scalar but a constraint, restored after each of the discriminator's steps: no weight, always due."""

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def project_(self, discriminator: nn.Module) -> None:
        """Move the parameters, in place, to the nearest ones allowed."""


def checked_factor(name: str, value: float) -> float:
    """The value; ValueError under its name when it is negative, infinite or NaN."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value}: must be a number of at least 0 (0 turns the penalty off)")
    return value
