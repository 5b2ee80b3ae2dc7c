"""MAD-GAN (Ghosh et al. 2018, "Multi-Agent Diverse Generative Adversarial Networks", arXiv:1704.02906): several
generators, and a discriminator that says which of them made an image, if it is not real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Terms, Turn
from ganforge.games.readout import Readout, finished_like_the_head, shapes
from ganforge.games.synthesis import Seen, Synthesis, at_least_float32
from ganforge.losses.loss import Loss
from ganforge.penalties.penalty import Penalty


class Generators(nn.Module):
    """k generators as one, of a z with one more normal number u: number ⌊k·Φ(u)⌋ makes the image.

    Args:
        generators: `(z, labels) -> images`, with the same `latent_dim`.
    """

    def __init__(self, generators: list[nn.Module]) -> None:
        super().__init__()
        self.generators = nn.ModuleList(generators)
        self.latent_dim = int(generators[0].latent_dim) + 1  # type: ignore[arg-type]

    def chosen(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> the number of each one's generator, int64 (B,)."""
        k = len(self.generators)
        position: Tensor = k * torch.special.ndtr(z[:, -1].float())
        return position.long().clamp(max=k - 1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (B, latent_dim), labels int64 (B,) -> images (B, C, H, W)."""
        chosen = self.chosen(z)
        rows = [(chosen == number).nonzero()[:, 0] for number in range(len(self.generators))]
        made = [
            generator(z[own, :-1], labels[own])
            for generator, own in zip(self.generators, rows, strict=True)
            if len(own)
        ]
        images: Tensor = torch.cat(made)[torch.cat(rows).argsort()]
        return images


class MADGAN(Synthesis):
    """k generators against one discriminator of k + 1 answers (section 3.2, equations 1 and 2).

    With D_0 the probability of real and D_i that of generator i, the discriminator minimises

        -E[log D_0(x)] - E[log D_i(G_i(z))] = -E[log D_0(x)] - E[log(1 - D_0(G_i(z)))] - E[log D_i / (1 - D_0)]

    over images of all generators alike: an ordinary loss of the logit of D_0, here any, and the term `which` that tells
    the generators apart. Each generator minimises the loss of that logit alone. With loss=nonsaturating it is the
    paper's game with its -log D_0 for the generators.

    Args:
        make_generator: gives a generator each time it is called.
        discriminator, loss, penalties, augmentation: as in `Synthesis`; the discriminator has features and a head.
        number: k, at least 2.
        which_weight: factor of the term; 1 is the paper's.

    Raises:
        ValueError: fewer than two generators, a negative weight, or a discriminator without features.
    """

    unsupervised = True
    reads_features: ClassVar[bool] = True
    generator_side: Generators

    def __init__(
        self,
        make_generator: Callable[[], nn.Module],
        discriminator: nn.Module,
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        number: int = 3,
        which_weight: float = 1.0,
    ) -> None:
        if number < 2:
            raise ValueError(f"number={number}: of several generators there are at least 2")
        if not which_weight >= 0:
            raise ValueError(f"which_weight={which_weight} must be at least 0")
        generators = [make_generator() for _ in range(number)]
        found = shapes(generators[0], discriminator)
        which = finished_like_the_head(nn.Linear(found.features, number), discriminator)
        super().__init__(Generators(generators), Readout(discriminator, which), loss, penalties, augmentation)
        self.number, self.which_weight = number, which_weight

    def _spread(self, z: Tensor, draws: Draws) -> Tensor:
        """The last number is the middle of what stands for the generators in turn, over all ranks together.

        Any may be the first one: none is left out of batches that are smaller than the number of generators.
        """
        first = draws.rank * len(z) + draws.one_of(self.number)
        turns = (torch.arange(len(z), device=z.device) + first) % self.number
        z[:, -1] = torch.special.ndtri((turns + 0.5) / self.number)
        return z

    def _further_discriminator_terms(self, real: Seen, fake: Seen, turn: Turn) -> Terms:
        with torch.autocast(fake.features.device.type, enabled=False):
            logits = self.discriminator_side.readout(fake.features)  # type: ignore[operator]
            chosen = self.generator_side.chosen(fake.z)
            turn.observe("accuracy_which", (logits.argmax(dim=1) == chosen).float())
            return {"which": self.which_weight * cross_entropy(logits, chosen)}

    def pictures(
        self,
        draws: Draws,
        labels: Tensor,
        generator_side: nn.Module | None = None,
        real: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each generator's own samples of the same latents, a row each."""
        side = self.generator_side if generator_side is None else generator_side
        assert isinstance(side, Generators)
        z = super()._latents(draws, labels)[:, :-1]
        return {"generators": torch.stack([at_least_float32(g(z, labels)) for g in side.generators])}
