"""What a penalty is: a weight, how often it is due, and one of the ways to act on the players."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.schedules import Value, ends, value_at

Critic = Callable[[Tensor], Tensor]
"""Images (B, C, H, W), or vectors (B, D), to logits (B,): the discriminator with its labels bound."""

Player = Literal["discriminator", "generator"]


class Penalty(nn.Module):
    """The common part; subclass one of those below.

    What a penalty learns of the game is kept in buffers. A module inside it names in `averaged_over_ranks` those that
    each process gathers over its own share of a batch, of which the mean is to be taken.

    Args:
        weight: factor of the scalar, at least 0, or a schedule of it.
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

    player: Player = "discriminator"
    """In whose terms it is."""

    def __init__(self, weight: Value = 1.0, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every}: a penalty is due each `every`-th round; give 1 (each) or more")
        self._weight = checked_factor("weight", weight)
        self._kimg = 0.0
        self.every = every

    @property
    def weight(self) -> float:
        return self._now(self._weight)

    def set_time(self, images_seen: int) -> None:
        """Says what factors that change in time are to be taken at; called before each use."""
        self._kimg = images_seen / 1000

    def _now(self, value: Value) -> float:
        return value_at(value, self._kimg)

    def advance(self) -> None:
        """Called after each of its player's steps, once processes that play together have averaged what is gathered."""
        return None


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


class LogitPenalty(Penalty, ABC):
    """A scalar read off the logits that the discriminator's loss is taken of."""

    @abstractmethod
    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The penalty, `weight` included and `every` not, of float32 logits (B,)."""


class ParameterPenalty(Penalty, ABC):
    """A scalar read off a player's parameters.

    Args:
        player: whose.

    Raises:
        ValueError: a player who is not there.
    """

    def __init__(self, weight: Value = 1.0, every: int = 1, player: Player = "discriminator") -> None:
        super().__init__(weight, every)
        if player not in ("discriminator", "generator"):
            raise ValueError(f"player={player}: it can be discriminator or generator")
        self.player = player

    @abstractmethod
    def forward(self, network: nn.Module) -> Tensor:
        """The penalty, `weight` included and `every` not."""


class DiscriminatorPenalty(Penalty, ABC):
    """A scalar that asks the discriminator, or parts of its own in there, for more than logits."""

    @abstractmethod
    def prepare(self, discriminator: nn.Module) -> None:
        """Called once, when the game is put together: parts that are to learn are added to the discriminator here.

        Raises:
            ValueError: a discriminator without what is needed.
        """

    @abstractmethod
    def forward(self, discriminator: nn.Module, real: Tensor, draws: Draws) -> Tensor:
        """The penalty, `weight` included and `every` not; `real` and `draws` as in `CriticPenalty`."""


@dataclass(frozen=True)
class Scene:
    """What a generator's penalty may look at: both networks, with the batch's labels bound, and what they made.

    Attributes:
        generator: `(z, labels) -> images`.
        critic: images to logits; without augmentation, differentiable twice.
        features: images to the discriminator's features (B, D), likewise.
        labels: int64 (B,).
        real: images (B, C, H, W), or vectors (B, D).
        z: float (B, latent_dim) of the fakes.
        fake: made of z and the labels; in the generator's step with a graph.
    """

    generator: nn.Module
    critic: Critic
    features: Critic
    labels: Tensor
    real: Tensor
    z: Tensor
    fake: Tensor

    def generate(self, z: Tensor) -> Tensor:
        images: Tensor = self.generator(z, self.labels)
        return images


class GeneratorPenalty(Penalty, ABC):
    """A scalar that the generator minimises, and maybe another one that the discriminator does."""

    player: Player = "generator"

    needs_real: ClassVar[bool] = False
    """Looks at `scene.real` in the generator's step."""

    has_discriminator_term: ClassVar[bool] = False

    @abstractmethod
    def forward(self, scene: Scene, draws: Draws) -> Tensor:
        """The generator's term, `weight` included and `every` not."""

    def of_discriminator(self, scene: Scene, draws: Draws) -> Tensor:
        """The discriminator's term, of which no gradient reaches the generator."""
        raise NotImplementedError


class Projection(Penalty, ABC):
    """No scalar but a constraint, restored after each of the discriminator's steps: no weight, always due."""

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def project_(self, discriminator: nn.Module) -> None:
        """Move the parameters, in place, to the nearest ones allowed."""


def checked_factor(name: str, value: Value) -> Value:
    """The value; ValueError under its name when it is negative, infinite or NaN."""
    if not all(0 <= end < math.inf for end in ends(value)):
        raise ValueError(f"{name}={value}: must be a number of at least 0 (0 turns the penalty off)")
    return value
