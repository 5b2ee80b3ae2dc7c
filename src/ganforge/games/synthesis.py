"""Image synthesis (Goodfellow et al. 2014): from noise, and labels where there are any, to images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.game import Batch, Game, Terms, Turn
from ganforge.losses.loss import Loss
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

    Attributes:
        fused_pass: one pass of the discriminator over real and fake together; not with batch norm in it, and with
            spectral norm one power iteration instead of two.
        reuse_fakes: the generator's step takes the fakes of the last discriminator step instead of fresh ones.
    """

    fused_pass = False
    reuse_fakes = False

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        super().__init__()
        self.generator_side = generator
        self.discriminator_side = discriminator
        self.loss = loss
        self.penalties = nn.ModuleDict(dict(penalties or {}))
        self._compiled: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
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
        real_logits, fake_logits = self._both_logits(real, fake, labels)
        turn.observe("real_logits", real_logits)
        turn.observe("fake_logits", fake_logits)
        turn.observe("accuracy_real", real_logits > 0)
        turn.observe("accuracy_fake", fake_logits < 0)
        terms = {"adversarial": self.loss.discriminator_loss(real_logits, fake_logits)}

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
        fake_logits = self._logits(fake, labels)
        real_logits = None
        if self.loss.generator_uses_real:
            with torch.no_grad():
                real_logits = self._logits(batch["images"], labels)
        return {"adversarial": self.loss.generator_loss(real_logits, fake_logits)}

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

    def _fakes(self, draws: Draws, labels: Tensor) -> Tensor:
        return self._images(self._compiled.get("generator", self.generator_side), draws, labels)

    def _images(self, generator: Callable[[Tensor, Tensor], Tensor], draws: Draws, labels: Tensor) -> Tensor:
        z = draws.normal(len(labels), self.latent_dim, device=labels.device)
        return _at_least_float32(generator(z, labels))

    def _logits(self, images: Tensor, labels: Tensor) -> Tensor:
        discriminator = self._compiled.get("discriminator", self.discriminator_side)
        return _at_least_float32(discriminator(images, labels))

    def _both_logits(self, real: Tensor, fake: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.fused_pass:
            return self._logits(real, labels), self._logits(fake, labels)
        real_logits, fake_logits = self._logits(torch.cat([real, fake]), labels.repeat(2)).chunk(2)
        return real_logits, fake_logits


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Losses and penalties are computed in float32 where the networks ran in bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
