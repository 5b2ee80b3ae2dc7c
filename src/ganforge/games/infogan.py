"""InfoGAN (Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets", arXiv:1606.03657): a part of the latents says something that can be read off the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu, one_hot

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Terms, Turn
from ganforge.games.readout import Readout, shapes
from ganforge.games.synthesis import Seen, Synthesis, at_least_float32
from ganforge.losses.loss import Loss
from ganforge.penalties.penalty import Penalty

NORMAL_ENTROPY_LESS_SPREAD = math.log(2 * math.pi) / 2  # -log N(x; x, 1)


class CodedGenerator(nn.Module):
    """A generator whose last latents are codes: one-hot categories, then uniform numbers in [-1, 1).

    All of it comes from normal numbers, as every latent here: K of them make a category, the largest one's; one makes
    a continuous code, 2·Φ(z) - 1. So whatever hands normal latents to a generator can hand them to this one.

    Args:
        generator: `(z, labels) -> images`, of which the last latents become codes.
        categories: K of each categorical code.
        continuous: number of continuous codes.

    Raises:
        ValueError: a code of fewer than two categories, no code at all, or more of them than latents.
    """

    def __init__(self, generator: nn.Module, categories: Sequence[int], continuous: int) -> None:
        super().__init__()
        self.generator = generator
        self.latent_dim = int(generator.latent_dim)  # type: ignore[arg-type]
        self.categories, self.continuous = list(categories), continuous
        if any(k < 2 for k in self.categories) or continuous < 0 or not (self.categories or continuous):
            raise ValueError(
                f"categories={self.categories}, continuous={continuous}: a categorical code has at least 2 values, and "
                "there is at least one code"
            )
        self.code_dim = sum(self.categories) + continuous
        if self.code_dim > self.latent_dim:
            raise ValueError(
                f"categories={self.categories} and continuous={continuous} take {self.code_dim} latents, and the "
                f"generator has latent_dim={self.latent_dim}: model.generator.latent_dim=... larger"
            )

    def codes(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """Normal z (B, latent_dim) -> each code's category int64 (B,), and continuous codes (B, continuous)."""
        *normals, rest = torch.split(z[:, -self.code_dim :], [*self.categories, self.continuous], dim=1)
        return [part.argmax(dim=1) for part in normals], 2 * torch.special.ndtr(rest) - 1

    def made_of(
        self, noise: Tensor, categories: Sequence[Tensor], continuous: Tensor, labels: Tensor
    ) -> Tensor:
        """Images of noise (B, latent_dim - code_dim) and of codes as `codes` gives them."""
        hot = [one_hot(c, k).to(noise.dtype) for c, k in zip(categories, self.categories, strict=True)]
        images: Tensor = self.generator(torch.cat([noise, *hot, continuous], dim=1), labels)
        return images

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Normal z (B, latent_dim), labels int64 (B,) -> images (B, C, H, W)."""
        categories, continuous = self.codes(z)
        return self.made_of(z[:, : -self.code_dim], categories, continuous, labels)


class Recognition(nn.Module):
    """Q: features -> a hidden layer with leaky ReLU (0.1) -> scores of each category, means of the continuous codes."""

    def __init__(self, features: int, width: int, categories: Sequence[int], continuous: int) -> None:
        super().__init__()
        self.sizes = [*categories, continuous]
        self.hidden = nn.Linear(features, width)
        self.out = nn.Linear(width, sum(self.sizes))

    def forward(self, features: Tensor) -> tuple[list[Tensor], Tensor]:
        """features (B, D) -> logits (B, K) of each categorical code, means (B, continuous)."""
        *logits, means = torch.split(self.out(leaky_relu(self.hidden(features), 0.1)), self.sizes, dim=1)
        return list(logits), means


class InfoGAN(Synthesis):
    """Synthesis in which both players also raise a lower bound of I(c; G(z, c)), c the codes (equations 5 and 6):

        L_I = H(c) - E[-log Q(c | G(z, c))]
        both: + λ_cat · E[-log Q(category)] + λ_con · E[-log Q(continuous)]

    Q shares all of the discriminator but its head. Categories are uniform, Q(category) a softmax; continuous codes are
    uniform in [-1, 1), Q of them normal about a mean, with variance 1 as in the authors' experiments.

    Args:
        generator, discriminator, loss, penalties, augmentation: as in `Synthesis`.
        categories: K of each categorical code.
        continuous: number of continuous codes.
        categorical_weight, continuous_weight: λ_cat and λ_con, at least 0.
        recognition_width: of Q's hidden layer.

    Raises:
        ValueError: codes that do not fit the generator, a negative weight, or a discriminator without features.
    """

    unsupervised = True
    reads_features: ClassVar[bool] = True
    generator_side: CodedGenerator

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        categories: Sequence[int] = (10,),
        continuous: int = 2,
        categorical_weight: float = 1.0,
        continuous_weight: float = 0.1,
        recognition_width: int = 128,
    ) -> None:
        for name, weight in (
            ("categorical_weight", categorical_weight),
            ("continuous_weight", continuous_weight),
        ):
            if not weight >= 0:
                raise ValueError(f"{name}={weight} must be at least 0")
        coded = CodedGenerator(generator, categories, continuous)
        found = shapes(generator, discriminator)
        q = Recognition(found.features, recognition_width, coded.categories, continuous)
        super().__init__(coded, Readout(discriminator, q), loss, penalties, augmentation)
        self.categorical_weight, self.continuous_weight = categorical_weight, continuous_weight

    def _further_discriminator_terms(self, real: Seen, fake: Seen, turn: Turn) -> Terms:
        return self._information(fake, turn)

    def _further_generator_terms(self, fake: Seen, turn: Turn) -> Terms:
        return self._information(fake, turn)

    def _information(self, fake: Seen, turn: Turn) -> Terms:
        with torch.autocast(fake.features.device.type, enabled=False):
            logits, means = self.discriminator_side.readout(fake.features)  # type: ignore[operator]
            categories, continuous = self.generator_side.codes(fake.z)
            terms: Terms = {}
            if logits:
                pairs = list(zip(logits, categories, strict=True))
                lost = torch.stack([cross_entropy(scores, right) for scores, right in pairs]).sum()
                terms["categorical"] = self.categorical_weight * lost
                entropy = sum(math.log(k) for k in self.generator_side.categories)
                turn.observe("mutual_information", entropy - lost)
                right = torch.stack([scores.argmax(dim=1) == right for scores, right in pairs])
                turn.observe("recognised", right.float())
            if continuous.shape[1]:
                per_code = (continuous - means).square() / 2 + NORMAL_ENTROPY_LESS_SPREAD
                terms["continuous"] = self.continuous_weight * per_code.sum(dim=1).mean()
        return terms

    def pictures(
        self,
        draws: Draws,
        labels: Tensor,
        generator_side: nn.Module | None = None,
        real: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """A traversal of each code: a row has one noise and one set of the other codes, a column one value.

        Continuous codes go from -2 to 2, as in the paper's figure 2, beyond what was trained.
        """
        side = self.generator_side if generator_side is None else generator_side
        assert isinstance(side, CodedGenerator)
        rows = len(labels)
        z = self._latents(draws, labels)
        found: dict[str, Tensor] = {}
        number = len(side.categories) + side.continuous
        for code in range(number):
            categorical = code < len(side.categories)
            columns = side.categories[code] if categorical else 10
            categories, continuous = side.codes(z.repeat_interleave(columns, dim=0))
            if categorical:
                categories[code] = torch.arange(columns, device=z.device).repeat(rows)
            else:
                values = torch.linspace(-2, 2, columns, device=z.device).repeat(rows)
                continuous[:, code - len(side.categories)] = values
            noise = z[:, : -side.code_dim].repeat_interleave(columns, dim=0)
            images = side.made_of(noise, categories, continuous, labels.repeat_interleave(columns))
            name = f"code{code}_{'categorical' if categorical else 'continuous'}"
            found[name] = at_least_float32(images).reshape(rows, columns, *images.shape[1:])
        return found
