"""What a method of sampling is that asks the discriminator: from generator and discriminator to a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ganforge.games.energies import EnergyGame
from ganforge.games.game import Game
from ganforge.games.sampling import Sampler
from ganforge.games.synthesis import Synthesis


@dataclass(frozen=True)
class Judged:
    """A generator with the discriminator that judged it.

    Attributes:
        latent_dim: length of z, which is standard normal.
        images: z float32 (B, latent_dim), labels int64 (B,) -> samples float32 (B, ...), differentiable in z.
        logits: z, its samples, labels -> log p_data / p_generator float32 (B,), as far as the discriminator knows it.
            Where it judges pairs of a sample and z, the ratio is of those, and samples of such pairs follow the data.
        device: of both.
    """

    latent_dim: int
    images: Callable[[Tensor, Tensor], Tensor]
    logits: Callable[[Tensor, Tensor, Tensor], Tensor]
    device: Any = None


class SamplingMethod(ABC):
    """Makes of a judged generator a sampler of its own."""

    @abstractmethod
    def __call__(self, judged: Judged, class_counts: Sequence[int], batch_size: int) -> Sampler:
        """A sampler whose batches depend on their random numbers and labels alone.

        Args:
            class_counts: of the data; empty without classes.
            batch_size: of what is made beforehand.
        """

    def parameters(self) -> dict[str, Any]:
        """The settings, as plain data, for the protocol stamp: its public attributes."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def judged(game: Game, generator_side: nn.Module) -> Judged:
    """The game's generator, with these weights, and its discriminator in evaluation mode.

    Raises:
        ValueError: a game whose samples are not made of a normal z alone, or whose discriminator gives no logit, or
            does not judge them one by one.
    """
    if isinstance(game, EnergyGame):
        raise ValueError(
            f"sampling by the discriminator takes its logits, and that of {type(game).__name__} gives energies: leave "
            "sampling=... out"
        )
    own = isinstance(game, Synthesis) and all(
        getattr(type(game), name) is getattr(Synthesis, name)
        for name in ("sample", "_latents", "_fakes", "_judge")
    )
    if not own:
        raise ValueError(
            f"sampling by the discriminator is for games of normal latents, and {type(game).__name__} makes samples or "
            "judges them in a way of its own: leave sampling=... out"
        )
    assert isinstance(game, Synthesis)
    if getattr(game, "packing", 1) > 1:
        raise ValueError(
            f"game.packing={game.packing} has a discriminator of packs, which judges no single sample: leave "
            "sampling=... out"
        )
    for name, module in game.discriminator_side.named_modules():
        if getattr(module, "mixes_samples", False):
            raise ValueError(
                f"the discriminator's {name} ({type(module).__name__}) judges each sample by the others of its batch: "
                "leave sampling=... out"
            )
    game.discriminator_side.eval().requires_grad_(False)
    return Judged(
        latent_dim=int(generator_side.latent_dim),  # type: ignore[arg-type]
        images=lambda z, labels: generator_side(z, labels).float(),
        logits=lambda z, images, labels: game.judged(z, images, labels).float(),
        device=next(generator_side.parameters()).device,
    )
