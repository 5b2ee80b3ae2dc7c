"""EBGAN (Zhao, Mathieu & LeCun 2017, "Energy-based Generative Adversarial Network", arXiv:1609.03126)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ganforge.augmentations.augmentation import Augmentation
from ganforge.games.energies import EnergyGame, Margin
from ganforge.games.game import Terms, Turn
from ganforge.games.synthesis import Seen
from ganforge.penalties.penalty import Penalty


def pulling_away(codes: Tensor) -> Tensor:
    """1 / (N (N - 1)) Σ_i Σ_{j ≠ i} cos²(s_i, s_j) of codes s (N, D), N > 1; scalar in [0, 1] (equation 10)."""
    n = len(codes)
    directions = normalize(codes, dim=1)
    squares = (directions @ directions.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))


class EBGAN(EnergyGame):
    """An autoencoder as the discriminator, its error e as the energy, and a margin m (equations 1 and 2):

        L_D = E[e(x)] + E[max(0, m - e(G(z)))]
        L_G = E[e(G(z))] + λ · pulling_away(codes of G(z))

    The pulling-away term is of the pairs within what is judged at once: a micro-batch of one process.

    Args:
        generator, penalties, augmentation: as in `Synthesis`.
        discriminator: `(images, labels) -> -energy (B,)`, with `features(images)` its codes.
        margin: m, in the energy's unit.
        pulling_away_weight: λ; 0 leaves the term out.

    Raises:
        ValueError: a margin that is not above 0, or a negative weight.
    """

    reads_features: ClassVar[bool] = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        margin: float = 10.0,
        pulling_away_weight: float = 0.1,
    ) -> None:
        if not pulling_away_weight >= 0:
            raise ValueError(f"pulling_away_weight={pulling_away_weight} must be at least 0")
        super().__init__(generator, discriminator, Margin(margin), penalties, augmentation)
        self.pulling_away_weight = pulling_away_weight
        self.of_whole_batch = pulling_away_weight > 0

    def _further_generator_terms(self, fake: Seen, turn: Turn) -> Terms:
        if not self.pulling_away_weight or len(fake.features) < 2:
            return {}
        with torch.autocast(fake.features.device.type, enabled=False):
            return {"pulling_away": self.pulling_away_weight * pulling_away(fake.features)}
