"""SS-GAN (Chen et al. 2019, "Self-Supervised GANs via Auxiliary Rotation Loss", arXiv:1811.11212): the discriminator
also says by how much an image was turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganforge.augmentations.augmentation import Augmentation
from ganforge.games.game import Terms, Turn
from ganforge.games.readout import Readout, finished_like_the_head, shapes
from ganforge.games.synthesis import Seen, Synthesis
from ganforge.losses.loss import Loss
from ganforge.penalties.penalty import Penalty


def turned(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, C, N, N) -> all four quarter turns of each (4B, C, N, N), and by how many, int64 (4B,)."""
    quarters = torch.arange(4, device=images.device).repeat_interleave(len(images))
    return torch.cat([images.rot90(quarter, dims=(2, 3)) for quarter in range(4)]), quarters


class SSGAN(Synthesis):
    """Synthesis with a question for both players (equation 3), r one of four rotations and x^r an image turned by it:

        L_D = L_D(adversarial) - β · E[log Q(r | x^r)] over real images
        L_G = L_G(adversarial) - α · E[log Q(r | G(z)^r)]

    Q shares all of the discriminator but its head, which sees no turned image, and has spectral norm where the head
    has. As in the paper, a quarter of each batch is turned, each of its images in all four ways.

    Args:
        generator, discriminator, loss, penalties, augmentation: as in `Synthesis`.
        generator_weight, discriminator_weight: α and β, at least 0.

    Raises:
        ValueError: points or oblong images, a negative weight, or a discriminator without features.
    """

    reads_features: ClassVar[bool] = True
    judges_again: ClassVar[bool] = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        generator_weight: float = 0.2,
        discriminator_weight: float = 1.0,
    ) -> None:
        for name, weight in (
            ("generator_weight", generator_weight),
            ("discriminator_weight", discriminator_weight),
        ):
            if not weight >= 0:
                raise ValueError(f"{name}={weight} must be at least 0")
        found = shapes(generator, discriminator)
        if len(found.image) != 3 or found.image[1] != found.image[2]:
            shape = "x".join(map(str, found.image))
            raise ValueError(f"samples of {shape} cannot be turned: game=ssgan takes square images")
        rotation = finished_like_the_head(nn.Linear(found.features, 4), discriminator)
        super().__init__(generator, Readout(discriminator, rotation), loss, penalties, augmentation)
        self.generator_weight, self.discriminator_weight = generator_weight, discriminator_weight

    def _further_discriminator_terms(self, real: Seen, fake: Seen, turn: Turn) -> Terms:
        term = self._misjudged(real.images, turn, "accuracy_rotation")
        return {"rotation": self.discriminator_weight * term}

    def _further_generator_terms(self, fake: Seen, turn: Turn) -> Terms:
        term = self._misjudged(fake.images, turn, "accuracy_rotation_fake")
        return {"rotation": self.generator_weight * term}

    def _misjudged(self, images: Tensor, turn: Turn, accuracy: str) -> Tensor:
        """Cross-entropy of Q's answers for every fourth image."""
        rotated, quarters = turned(images[::4])
        features = self._features(rotated)
        with torch.autocast(images.device.type, enabled=False):
            logits = self.discriminator_side.readout(features)  # type: ignore[operator]
            turn.observe(accuracy, (logits.argmax(dim=1) == quarters).float())
            return cross_entropy(logits, quarters)
