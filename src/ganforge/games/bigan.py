"""BiGAN and ALI (Donahue et al. 2017, "Adversarial Feature Learning", arXiv:1605.09782; Dumoulin et al. 2017,
"Adversarially Learned Inference", arXiv:1606.00704): an encoder learns beside the generator, and pairs are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Batch, Turn
from ganforge.games.readout import shapes
from ganforge.games.synthesis import Synthesis, at_least_float32
from ganforge.losses.loss import Loss
from ganforge.networks.freezing import blocks_of_part
from ganforge.networks.heads.head import MakeHead, plain
from ganforge.networks.heads.projection import Projection
from ganforge.penalties.penalty import Penalty


class Inference(nn.Module):
    """A generator and what goes the other way: a discriminator's features, and a linear layer to the latents.

    Args:
        generator: `(z, labels) -> images`.
        trunk: with `features(images)` (B, features); its head is dropped.
        features: how many.
    """

    def __init__(self, generator: nn.Module, trunk: nn.Module, features: int) -> None:
        super().__init__()
        self.generator = generator
        self.latent_dim = int(generator.latent_dim)  # type: ignore[arg-type]
        trunk.head = nn.Identity()
        self.trunk = trunk
        self.linear = nn.Linear(features, self.latent_dim)

    def encode(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> z (B, latent_dim)."""
        z: Tensor = self.linear(self.trunk.features(images))  # type: ignore[operator]
        return z

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (B, latent_dim), labels int64 (B,) -> images (B, C, H, W)."""
        images: Tensor = self.generator(z, labels)
        return images


class PairDiscriminator(nn.Module):
    """Judges a pair as one vector (C·H·W + latent_dim), so that penalties of its slope are of both parts.

    Features of the image beside two layers on z, then one on both, each with leaky ReLU (0.2), then a head.

    Args:
        trunk: with `features(images)` (B, features); its head is dropped.
        image_shape: (C, H, W), or (D,) of vectors.
        features: how many the trunk has.
        latent_dim: length of z.
        width: of the layers on z and on both.
        num_classes: 0 without classes.
        head: how it takes labels; None for a projection.
    """

    def __init__(
        self,
        trunk: nn.Module,
        image_shape: torch.Size,
        features: int,
        latent_dim: int,
        width: int,
        num_classes: int,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        trunk.head = nn.Identity()
        self.trunk = trunk
        self.image_shape, self.latent_dim = image_shape, latent_dim
        self.of_code = nn.Sequential(
            nn.Linear(latent_dim, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
        )
        self.of_both = nn.Linear(features + width, width)
        self.head = (head or Projection)(width, num_classes, plain)

    @property
    def blocks_in_order(self) -> list[list[str]]:
        """The image's, then those of z and of both."""
        return [*blocks_of_part(self, "trunk"), ["of_code.0"], ["of_code.2"], ["of_both"], ["head"]]

    def image_features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> (B, features)."""
        features: Tensor = self.trunk.features(images)  # type: ignore[operator]
        return features

    def features(self, pairs: Tensor) -> Tensor:
        """Pairs (B, C·H·W + latent_dim) -> (B, width); images alone are paired with the mean code, 0."""
        if pairs.shape[1:] == self.image_shape:
            pairs = torch.cat([pairs.flatten(1), pairs.new_zeros(len(pairs), self.latent_dim)], dim=1)
        pixels = pairs.shape[1] - self.latent_dim
        of_image = self.image_features(pairs[:, :pixels].reshape(-1, *self._shape_of(pixels)))
        both = torch.cat([of_image, self.of_code(pairs[:, pixels:]).to(of_image.dtype)], dim=1)
        return leaky_relu(self.of_both(both), 0.2)

    def _shape_of(self, pixels: int) -> list[int]:
        """Of an image with so many numbers: networks that grow make smaller ones at first."""
        channels, *sides = self.image_shape
        shrunk = (pixels / self.image_shape.numel()) ** 0.5
        return [channels, *(round(side * shrunk) for side in sides)]

    def forward(self, pairs: Tensor, labels: Tensor) -> Tensor:
        """Pairs (B, C·H·W + latent_dim), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(pairs), labels)
        return logits


class BiGAN(Synthesis):
    """The discriminator tells pairs (x, E(x)) of real images from pairs (G(z), z), and G and E make them alike.

    At the optimum E inverts G (theorem 2). L_D is the loss with r = D(x, E(x)) and f = D(G(z), z); as both kinds of
    pairs learn, G and E minimise L_G(f) + L_G(2m - r), m the logit that says neither: the loss with the roles of real
    and fake exchanged. With loss=nonsaturating that is -E[log D(G(z), z)] - E[log(1 - D(x, E(x)))], the paper's
    section 3.4. Losses that compare real with fake hold both already.

    E is the features of a second network of the discriminator's kind, with a linear layer. Augmentation changes
    images on their way to the discriminator; E sees them as they are.

    Args:
        generator, loss, penalties, augmentation: as in `Synthesis`.
        make_discriminator: gives a network with features and a head each time it is called; heads are dropped.
        head: of the pairs' discriminator.
        num_classes: 0 without classes.
        width: of the pairs' layers.

    Raises:
        ValueError: a discriminator without features, or a penalty that changes images, of which a pair is none.
    """

    unsupervised = True
    generator_side: Inference
    discriminator_side: PairDiscriminator

    def __init__(
        self,
        generator: nn.Module,
        make_discriminator: Callable[[], nn.Module],
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        head: MakeHead | None = None,
        num_classes: int = 0,
        width: int = 256,
    ) -> None:
        for name, penalty in (penalties or {}).items():
            if any(isinstance(m, Augmentation) and m.needs_images for m in penalty.modules()):
                raise ValueError(
                    f"penalty {name} changes images, and game=bigan judges pairs of image and code: leave it out"
                )
        judge, trunk = make_discriminator(), make_discriminator()
        found = shapes(generator, judge)
        side = Inference(generator, trunk, found.features)
        pairs = PairDiscriminator(
            judge, found.image, found.features, side.latent_dim, width, num_classes, head
        )
        super().__init__(side, pairs, loss, penalties, augmentation)

    @property
    def generator_uses_real(self) -> bool:
        return True

    def _codes_of_real(self, images: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self._encoded(images)

    def _encoded(self, images: Tensor) -> Tensor:
        encode: Any = self._compiled.get("encoder", self.generator_side.encode)
        return at_least_float32(encode(images))

    def _told(self, shown: Tensor, codes: Tensor) -> Tensor:
        return torch.cat([shown.flatten(1), codes.to(shown.dtype)], dim=1)

    def _image_features(self, images: Tensor, labels: Tensor) -> Tensor:
        return at_least_float32(self.discriminator_side.image_features(images))

    def _real_logits_for_generator(self, batch: Batch, turn: Turn) -> Tensor:
        images = batch["images"]
        pairs = self._told(self._shown(images, turn), self._encoded(images))
        real_logits, *_ = self._judge(pairs, batch["labels"])
        return real_logits

    def _generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        if self.loss.generator_uses_real:
            return self.loss.generator_loss(real_logits, fake_logits)
        mirrored = 2 * self.loss.middle - real_logits
        return self.loss.generator_loss(None, fake_logits) + self.loss.generator_loss(None, mirrored)

    def compile_players(self) -> None:
        super().compile_players()
        self._compiled["encoder"] = torch.compile(self.generator_side.encode)

    def pictures(
        self,
        draws: Draws,
        labels: Tensor,
        generator_side: nn.Module | None = None,
        real: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Images above their reconstructions G(E(x)): real ones, and samples where there are none at hand."""
        side = self.generator_side if generator_side is None else generator_side
        assert isinstance(side, Inference)
        images = self.sample(draws, labels, side) if real is None else real
        again = side(at_least_float32(side.encode(images)), labels)
        return {"reconstructions": torch.stack([at_least_float32(images), at_least_float32(again)])}
