"""Image synthesis (Goodfellow et al. 2014): from noise, and labels where there are any, to images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Batch, Game, Terms, Turn
from ganforge.losses.loss import Loss
from ganforge.networks.heads.head import Head
from ganforge.penalties.penalty import CriticPenalty, ParameterPenalty, Penalty, Projection


class Synthesis(Game):
    """A generator against a discriminator.

    Batch: `images` float32 (B, C, H, W) in [-1, 1] (or vectors (B, D)) and `labels` int64 (B,), all 0 without classes.
    Fakes are drawn for the batch's own labels, so real and fake have the same class frequencies.

    Args:
        generator: `(z (B, latent_dim), labels (B,)) -> images`, with an attribute `latent_dim`.
        discriminator: `(images, labels) -> logits (B,)`; higher is more real.
        loss: the pair of adversarial losses.
        penalties: by the name they are logged under.
        augmentation: stands before the discriminator, for real and fake images and in both players' steps; penalties
            of the critic see augmented images.

    A discriminator with a `head` that learns from labels by terms of its own (an auxiliary classifier, say) and with
    `features(images)` has those terms added to both players' under the names that the head gives them. A head whose
    terms hold the adversarial one takes the place of the loss that it is a form of.

    Attributes:
        fused_pass: one pass of the discriminator over real and fake together; not with batch norm in it, and with
            spectral norm one power iteration instead of two.
        reuse_fakes: the generator's step takes the fakes of the last discriminator step instead of fresh ones.

    Raises:
        ValueError: a head that stands in for another loss than the one given, or an augmentation that is steered by
            signs of logits which the loss gives no meaning.
    """

    fused_pass = False
    reuse_fakes = False

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.generator_side = generator
        self.discriminator_side = discriminator
        self.loss = loss
        self.penalties = nn.ModuleDict(dict(penalties or {}))
        if augmentation is not None and augmentation.reads_signs and not loss.undecided_at_zero:
            raise ValueError(
                f"augmentation {type(augmentation).__name__} is steered by the sign of real logits, which says nothing "
                f"with {type(loss).__name__}: another loss=..., or augment.target=null and a fixed augment.p=..."
            )
        self.augmentation = augmentation
        head = getattr(discriminator, "head", None)
        self._head = head if isinstance(head, Head) and head.has_terms else None
        stands_for = self._head.adversarial_as if self._head is not None else None
        if stands_for not in (None, type(loss).__name__):
            raise ValueError(
                f"head {type(head).__name__} is a form of the loss {stands_for} and does not go with "
                f"{type(loss).__name__}: loss={str(stands_for).lower()}, or another head=..."
            )
        self._loss = loss if stands_for is None else None
        self._compiled: dict[str, Callable[..., Tensor]] = {}
        self._fake: Tensor | None = None

    @property
    def latent_dim(self) -> int:
        return int(self.generator_side.latent_dim)  # type: ignore[arg-type]

    @property
    def generator_uses_real(self) -> bool:
        return self.loss.generator_uses_real

    def discriminator_terms(self, batch: Batch, turn: Turn) -> Terms:
        real, labels = batch["images"], batch["labels"]
        kept = self.reuse_fakes and turn.last_step
        with torch.set_grad_enabled(kept):
            fake = self._fakes(turn.draws, labels)
        if kept:
            self._fake, fake = fake, fake.detach()
        real, fake = self._shown(self._taken_for_real(real, labels, turn), turn), self._shown(fake, turn)
        real_logits, fake_logits, *features = self._judge_both(real, fake, labels)
        turn.observe("real_logits", real_logits)
        turn.observe("fake_logits", fake_logits)
        turn.observe("accuracy_real", real_logits > 0)
        turn.observe("accuracy_fake", fake_logits < 0)
        terms = (
            {}
            if self._loss is None
            else {"adversarial": self._loss.discriminator_loss(real_logits, fake_logits)}
        )
        if self._head is not None:
            terms |= self._head.discriminator_terms(features[0], features[1], labels)
        if self.augmentation is not None:
            for name, value in self.augmentation.observe(real_logits.detach(), turn.images_seen).items():
                turn.observe(name, value)

        def critic(images: Tensor) -> Tensor:
            # Never the compiled one, which is differentiable only once.
            return _at_least_float32(self.discriminator_side(images, labels))

        for name, penalty in self._penalties():
            # Lazy regularisation (Karras et al. 2020, appendix B): every n-th round, n times as strong.
            if turn.round % penalty.every == 0:
                with torch.autocast(real.device.type, enabled=False):
                    if isinstance(penalty, CriticPenalty):
                        terms[name] = penalty(critic, real, fake, turn.draws) * penalty.every
                    elif isinstance(penalty, ParameterPenalty):
                        terms[name] = penalty(self.discriminator_side) * penalty.every
        return terms

    def generator_terms(self, batch: Batch, turn: Turn) -> Terms:
        labels = batch["labels"]
        fake = self._fakes(turn.draws, labels) if self._fake is None else self._fake
        self._fake = None
        fake_logits, *features = self._judge(self._shown(fake, turn), labels)
        real_logits = None
        if self.loss.generator_uses_real:
            with torch.no_grad():
                real_logits, *_ = self._judge(self._shown(batch["images"], turn), labels)
        terms = (
            {} if self._loss is None else {"adversarial": self._loss.generator_loss(real_logits, fake_logits)}
        )
        if self._head is not None:
            terms |= self._head.generator_terms(features[0], labels)
        return terms

    def after_discriminator_step(self) -> None:
        for _, penalty in self._penalties():
            if isinstance(penalty, Projection):
                penalty.project_(self.discriminator_side)

    def _penalties(self) -> Iterator[tuple[str, Penalty]]:
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            yield name, penalty

    def sample(self, draws: Draws, labels: Tensor, generator_side: nn.Module | None = None) -> Tensor:
        generator = self.generator_side if generator_side is None else generator_side
        return self._images(generator, draws, labels)

    def compile_players(self) -> None:
        """Compiles both networks' forward passes for training; names of weights stay as they are."""
        # Functions and not modules: those would be sub-modules, with weights of their own names.
        self._compiled = {
            "generator": torch.compile(self.generator_side.forward),
            "discriminator": torch.compile(self.discriminator_side.forward),
        }
        if self._head is not None:
            self._compiled["features"] = torch.compile(self.discriminator_side.features)  # type: ignore[arg-type]

    def _fakes(self, draws: Draws, labels: Tensor) -> Tensor:
        return self._images(self._compiled.get("generator", self.generator_side), draws, labels)

    def _images(self, generator: Callable[[Tensor, Tensor], Tensor], draws: Draws, labels: Tensor) -> Tensor:
        z = draws.normal(len(labels), self.latent_dim, device=labels.device)
        return _at_least_float32(generator(z, labels))

    @torch.no_grad()
    def _taken_for_real(self, real: Tensor, labels: Tensor, turn: Turn) -> Tensor:
        if self.augmentation is None:
            return real
        return self.augmentation.shown_as_real(real, lambda: self._fakes(turn.draws, labels), turn.draws)

    def _shown(self, images: Tensor, turn: Turn) -> Tensor:
        """Images as the discriminator sees them."""
        if self.augmentation is None:
            return images
        with torch.autocast(images.device.type, enabled=False):
            augmented: Tensor = self.augmentation(_at_least_float32(images), turn.draws, turn.images_seen)
        return augmented.to(images.dtype)

    def _judge(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """Logits (B,), and the features (B, D) where the head asks for them."""
        if self._head is None:
            discriminator = self._compiled.get("discriminator", self.discriminator_side)
            return [_at_least_float32(discriminator(images, labels))]
        extract: Any = self._compiled.get("features", self.discriminator_side.features)
        features = _at_least_float32(extract(images))
        with torch.autocast(images.device.type, enabled=False):
            return [self._head(features, labels), features]

    def _judge_both(self, real: Tensor, fake: Tensor, labels: Tensor) -> list[Tensor]:
        """Logits of real and fake images, then the features of both where the head asks for them."""
        if self.fused_pass:
            both = [t.chunk(2) for t in self._judge(torch.cat([real, fake]), labels.repeat(2))]
        else:
            both = list(zip(self._judge(real, labels), self._judge(fake, labels), strict=True))
        return [tensor for pair in both for tensor in pair]


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Losses and penalties are computed in float32 where the networks ran in bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
