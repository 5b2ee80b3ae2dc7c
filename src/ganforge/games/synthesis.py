"""Image synthesis (Goodfellow et al. 2014): from noise, and labels where there are any, to images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Batch, Game, Terms, Turn
from ganforge.games.latent_optimisation import LatentOptimisation, held
from ganforge.losses.loss import Loss
from ganforge.networks.heads.head import Head
from ganforge.networks.layers.growing import Growing
from ganforge.penalties.penalty import (
    CriticPenalty,
    DiscriminatorPenalty,
    GeneratorPenalty,
    LogitPenalty,
    ParameterPenalty,
    Penalty,
    Projection,
    Scene,
)
from ganforge.schedules import Value, ends, value_at


class Seen(NamedTuple):
    """What the discriminator saw in a step, and what it made of it.

    Attributes:
        images: as it was shown them, augmented.
        features: its features of them, float32 (B, D).
        z: that the step's fakes were made of, float32 (B, latent_dim).
    """

    images: Tensor
    features: Tensor
    z: Tensor


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
        top_k: the generator's adversarial term is taken of this share of its fakes, those judged most real (Sinha et
            al. 2020, "Top-k Training of GANs"), of a batch, or this process's share of it, or a schedule of the share:
            the paper's falls by the same factor each epoch; None for all.
        packing: how many images the discriminator judges as one, laid over one another as channels (Lin et al. 2018,
            "PacGAN"): it takes `packing` times the images' channels, and no labels. Those of a batch are packed in
            their order, after augmentation.

        latent_optimisation: has fakes made of latents that first take a step, in both players' steps (LOGAN).

    Networks that grow (`Growing`) are told the time before each step.

    A discriminator with a `head` that learns from labels by terms of its own (an auxiliary classifier, say) and with
    `features(images)` has those terms added to both players' under the names that the head gives them. A head whose
    terms hold the adversarial one takes the place of the loss that it is a form of.

    Attributes:
        fused_pass: one pass of the discriminator over real and fake together; not with batch norm in it, and with
            spectral norm one power iteration instead of two.
        reuse_fakes: the generator's step takes the fakes of the last discriminator step instead of fresh ones.

    Raises:
        ValueError: a head that stands in for another loss than the one given, an augmentation that is steered by
            signs of logits which the loss gives no meaning, a `top_k` that is no share or has no loss to act on, or a
            `packing` below 1.
    """

    reads_features: ClassVar[bool] = False
    """Whether a kind of game has terms of its own, read off the discriminator's features."""

    fused_pass = False
    reuse_fakes = False

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        top_k: Value | None = None,
        packing: int = 1,
        latent_optimisation: LatentOptimisation | None = None,
    ) -> None:
        super().__init__()
        self.generator_side = generator
        self.discriminator_side = discriminator
        self.loss = loss
        self.penalties = nn.ModuleDict(dict(penalties or {}))
        for penalty in self.penalties.values():
            if isinstance(penalty, DiscriminatorPenalty):
                penalty.prepare(discriminator)
        if augmentation is not None and augmentation.reads_signs and not loss.undecided_at_zero:
            raise ValueError(
                f"augmentation {type(augmentation).__name__} is steered by the sign of real logits, which says nothing "
                f"with {type(loss).__name__}: another loss=..., or augment.target=null and a fixed augment.p=..."
            )
        self.augmentation = augmentation
        of_generator, of_discriminator = _growing(generator), _growing(discriminator)
        if bool(of_generator) != bool(of_discriminator):
            raise ValueError(
                f"of {type(generator).__module__} and {type(discriminator).__module__} one grows in training: both "
                "have to, as in model=progan"
            )
        self._that_grow = of_generator + of_discriminator
        head = getattr(discriminator, "head", None)
        self._head = head if isinstance(head, Head) and head.has_terms else None
        stands_for = self._head.adversarial_as if self._head is not None else None
        if stands_for not in (None, type(loss).__name__):
            raise ValueError(
                f"head {type(head).__name__} is a form of the loss {stands_for} and does not go with "
                f"{type(loss).__name__}: loss={str(stands_for).lower()}, or another head=..."
            )
        self._loss = loss if stands_for is None else None
        if top_k is not None and not all(0 < end <= 1 for end in ends(top_k)):
            raise ValueError(f"top_k={top_k}: a share of the fakes must be above 0 and at most 1")
        if top_k is not None and self._loss is None:
            raise ValueError(
                f"top_k={top_k} does not go with head {type(head).__name__}, whose loss is its own"
            )
        self.top_k = top_k
        if packing < 1:
            raise ValueError(f"packing={packing}: the discriminator sees at least 1 image at a time")
        self.packing = packing
        self.latent_optimisation = latent_optimisation
        self._reads_features = self._head is not None or self.reads_features
        self._compiled: dict[str, Callable[..., Tensor]] = {}
        self._kept: tuple[Tensor, Tensor] | None = None

    @property
    def latent_dim(self) -> int:
        return int(self.generator_side.latent_dim)  # type: ignore[arg-type]

    @property
    def generator_uses_real(self) -> bool:
        return self.loss.generator_uses_real or any(
            isinstance(penalty, GeneratorPenalty) and penalty.needs_real for _, penalty in self._penalties()
        )

    def discriminator_terms(self, batch: Batch, turn: Turn) -> Terms:
        batch = self._at_this_time(batch, turn)
        labels = batch["labels"]
        kept = self.reuse_fakes and turn.last_step
        if self.latent_optimisation is not None:
            with held(self.generator_side):
                z, raw_fake, change = self._optimised_fakes(turn, labels)
        else:
            with torch.set_grad_enabled(kept):
                z, raw_fake = self._fakes(turn.draws, labels)
        if kept:
            self._kept, raw_fake = (z, raw_fake), raw_fake.detach()
        taken = self._taken_for_real(batch["images"], labels, turn)
        real = self._told(self._shown(taken, turn), self._codes_of_real(taken, z))
        fake = self._told(self._shown(raw_fake, turn), z)
        real_logits, fake_logits, *features = self._judge_both(real, fake, labels)
        self._observe(turn, real_logits, fake_logits)
        terms: Terms = {}
        if self._loss is not None:
            terms["adversarial"] = self._discriminator_loss(real_logits, fake_logits)
        if self.latent_optimisation is not None:
            terms["latent_step"] = change
        if self._head is not None:
            terms |= self._head.discriminator_terms(features[0], features[1], labels)
        if self.reads_features:
            real_seen, fake_seen = Seen(real, features[0], z), Seen(fake, features[1], z)
            terms |= self._further_discriminator_terms(real_seen, fake_seen, turn)
        if self.augmentation is not None:
            for name, value in self.augmentation.observe(real_logits.detach(), turn.images_seen).items():
                turn.observe(name, value)

        def term_of(penalty: Penalty) -> Tensor | None:
            if isinstance(penalty, CriticPenalty):
                return penalty(self._critic(labels), real, fake.detach(), turn.draws)  # type: ignore[no-any-return]
            if isinstance(penalty, DiscriminatorPenalty):
                return penalty(self.discriminator_side, real, turn.draws)  # type: ignore[no-any-return]
            if isinstance(penalty, LogitPenalty):
                return penalty(real_logits, fake_logits)  # type: ignore[no-any-return]
            if isinstance(penalty, ParameterPenalty) and penalty.player == "discriminator":
                return penalty(self.discriminator_side)  # type: ignore[no-any-return]
            if isinstance(penalty, GeneratorPenalty) and penalty.has_discriminator_term:
                return penalty.of_discriminator(self._scene(batch, z, raw_fake), turn.draws)
            return None

        return terms | self._due_terms(term_of, turn, real.device)

    def generator_terms(self, batch: Batch, turn: Turn) -> Terms:
        batch = self._at_this_time(batch, turn)
        labels = batch["labels"]
        if self.latent_optimisation is not None:
            z, raw_fake, change = self._optimised_fakes(turn, labels)
        else:
            z, raw_fake = self._fakes(turn.draws, labels) if self._kept is None else self._kept
        self._kept = None
        fake = self._told(self._shown(raw_fake, turn), z)
        fake_logits, *features = self._judge(fake, labels)
        real_logits = self._real_logits_for_generator(batch, turn)
        terms: Terms = {}
        if self._loss is not None:
            terms["adversarial"] = self._generator_loss(*self._best(real_logits, fake_logits, turn))
        if self.latent_optimisation is not None:
            terms["latent_step"] = change
        if self._head is not None:
            terms |= self._head.generator_terms(features[0], labels)
        if self.reads_features:
            terms |= self._further_generator_terms(Seen(fake, features[0], z), turn)

        def term_of(penalty: Penalty) -> Tensor | None:
            if isinstance(penalty, GeneratorPenalty):
                return penalty(self._scene(batch, z, raw_fake), turn.draws)  # type: ignore[no-any-return]
            if isinstance(penalty, ParameterPenalty) and penalty.player == "generator":
                return penalty(self.generator_side)  # type: ignore[no-any-return]
            return None

        return terms | self._due_terms(term_of, turn, labels.device)

    def _further_discriminator_terms(self, real: Seen, fake: Seen, turn: Turn) -> Terms:
        """Terms of a game that `reads_features`, beside the adversarial one; no gradient reaches the generator."""
        return {}

    def _further_generator_terms(self, fake: Seen, turn: Turn) -> Terms:
        """Likewise the generator's."""
        return {}

    def _discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.loss.discriminator_loss(real_logits, fake_logits)

    def _generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return self.loss.generator_loss(real_logits, fake_logits)

    def _real_logits_for_generator(self, batch: Batch, turn: Turn) -> Tensor | None:
        if not self.loss.generator_uses_real:
            return None
        with torch.no_grad():
            real_logits, *_ = self._judge(self._shown(batch["images"], turn), batch["labels"])
        return real_logits

    def _observe(self, turn: Turn, real_logits: Tensor, fake_logits: Tensor) -> None:
        turn.observe("real_logits", real_logits)
        turn.observe("fake_logits", fake_logits)
        turn.observe("accuracy_real", real_logits > 0)
        turn.observe("accuracy_fake", fake_logits < 0)

    def _codes_of_real(self, images: Tensor, z: Tensor) -> Tensor:
        """What stands beside real images where z stands beside fakes, in games that judge pairs."""
        return z

    def _told(self, shown: Tensor, codes: Tensor) -> Tensor:
        """What the discriminator takes for images: in games that judge pairs, images with their codes."""
        return shown

    def after_discriminator_step(self) -> None:
        for _, penalty in self._penalties():
            if isinstance(penalty, Projection):
                penalty.project_(self.discriminator_side)
            elif penalty.player == "discriminator":
                penalty.advance()

    def after_generator_step(self) -> None:
        for _, penalty in self._penalties():
            if penalty.player == "generator":
                penalty.advance()

    def _due_terms(
        self, term_of: Callable[[Penalty], Tensor | None], turn: Turn, device: torch.device
    ) -> Terms:
        """What penalties add to the terms of the player whose `term_of` is asked."""
        terms: Terms = {}
        for name, penalty in self._penalties():
            # Lazy regularisation (Karras et al. 2020, appendix B): every n-th round, n times as strong.
            if turn.round % penalty.every == 0:
                penalty.set_time(turn.images_seen)
                with torch.autocast(device.type, enabled=False):
                    term = term_of(penalty)
                if term is not None:
                    terms[name] = term * penalty.every
        return terms

    def _critic(self, labels: Tensor) -> Callable[[Tensor], Tensor]:
        # Never the compiled one, which is differentiable only once.
        return lambda images: at_least_float32(self.discriminator_side(images, labels[:: self.packing]))

    def _scene(self, batch: Batch, z: Tensor, fake: Tensor) -> Scene:
        labels = batch["labels"]

        def critic(images: Tensor) -> Tensor:
            return self.judged(z, images, labels)

        def features(images: Tensor) -> Tensor:
            return self._image_features(self._packed(images), labels)

        return Scene(self.generator_side, critic, features, labels, batch["images"], z, fake)

    def _image_features(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of images alone, (B, D); never compiled, so that they can be differentiated twice."""
        return at_least_float32(self.discriminator_side.features(images))  # type: ignore[operator]

    def _best(
        self, real_logits: Tensor | None, fake_logits: Tensor, turn: Turn
    ) -> tuple[Tensor | None, Tensor]:
        """The logits that the generator's adversarial term is taken of; as many real ones as of fakes."""
        if self.top_k is None:
            return real_logits, fake_logits
        k = math.ceil(len(fake_logits) * value_at(self.top_k, turn.images_seen / 1000))
        return None if real_logits is None else real_logits[:k], fake_logits.topk(k).values

    def _penalties(self) -> Iterator[tuple[str, Penalty]]:
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            yield name, penalty

    def sample(self, draws: Draws, labels: Tensor, generator_side: nn.Module | None = None) -> Tensor:
        generator = self.generator_side if generator_side is None else generator_side
        return at_least_float32(generator(self._latents(draws, labels), labels))

    def judged(self, z: Tensor, samples: Tensor, labels: Tensor) -> Tensor:
        """Logits (B,), or a pack's each, of samples (B, ...) made of z (B, latent_dim), for int64 labels (B,)."""
        return self._critic(labels)(self._told(self._packed(samples), z))

    @torch.no_grad()
    def logits_of_real(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of packs where there are any, what is left over left out."""
        images = self._that_grow[-1].shrunk(images) if self._that_grow else images
        codes = images.new_zeros(len(images), self.latent_dim)
        return self._logits(images, self._codes_of_real(images, codes), labels)

    @torch.no_grad()
    def logits_of_generated(self, draws: Draws, labels: Tensor) -> Tensor:
        z = self._latents(draws, labels)
        return self._logits(at_least_float32(self.generator_side(z, labels)), z, labels)

    def _logits(self, images: Tensor, codes: Tensor, labels: Tensor) -> Tensor:
        whole = len(images) // self.packing * self.packing
        return self.judged(codes[:whole], images[:whole], labels[:whole])

    def compile_players(self) -> None:
        """Compiles both networks' forward passes for training; names of weights stay as they are."""
        # Functions and not modules: those would be sub-modules, with weights of their own names.
        self._compiled = {
            "generator": torch.compile(self.generator_side.forward),
            "discriminator": torch.compile(self.discriminator_side.forward),
        }
        if self._reads_features:
            self._compiled["features"] = torch.compile(self.discriminator_side.features)  # type: ignore[arg-type]

    def _at_this_time(self, batch: Batch, turn: Turn) -> Batch:
        """The batch with images of the size that the players have grown to by now."""
        for network in self._that_grow:
            network.grow(turn.images_seen)
        return {**batch, "images": self._that_grow[-1].shrunk(batch["images"])} if self._that_grow else batch

    def _fakes(self, draws: Draws, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and what the generator makes of them."""
        z = self._latents(draws, labels)
        return z, at_least_float32(self._compiled.get("generator", self.generator_side)(z, labels))

    def _optimised_fakes(self, turn: Turn, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents after their step, what the generator makes of them, and the penalty on the step."""
        assert self.latent_optimisation is not None

        def score(z: Tensor) -> Tensor:
            images = at_least_float32(self.generator_side(z, labels))
            return self.judged(z, images, labels)

        z, change = self.latent_optimisation(self._latents(turn.draws, labels), score, turn.draws)
        return z, at_least_float32(self.generator_side(z, labels)), change

    def _latents(self, draws: Draws, labels: Tensor) -> Tensor:
        return self._spread(draws.normal(len(labels), self.latent_dim, device=labels.device), draws)

    def _spread(self, z: Tensor, draws: Draws) -> Tensor:
        """Normal latents, in games that spread a batch's more evenly; over many batches they are normal still."""
        return z

    @torch.no_grad()
    def _taken_for_real(self, real: Tensor, labels: Tensor, turn: Turn) -> Tensor:
        if self.augmentation is None:
            return real
        return self.augmentation.shown_as_real(
            real, lambda: self._fakes(turn.draws, labels)[1], turn.draws, turn.images_seen
        )

    def _shown(self, images: Tensor, turn: Turn) -> Tensor:
        """Images as the discriminator sees them."""
        if self.augmentation is None:
            return self._packed(images)
        with torch.autocast(images.device.type, enabled=False):
            augmented: Tensor = self.augmentation(at_least_float32(images), turn.draws, turn.images_seen)
        return self._packed(augmented.to(images.dtype))

    def _packed(self, images: Tensor) -> Tensor:
        """(B, C, ...) -> (B / packing, packing · C, ...)."""
        return images.reshape(len(images) // self.packing, -1, *images.shape[2:])

    def _judge(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """Logits (B,), or a pack's each, and the features (B, D) where the head asks for them."""
        labels = labels[:: self.packing]
        if not self._reads_features:
            discriminator = self._compiled.get("discriminator", self.discriminator_side)
            return [at_least_float32(discriminator(images, labels))]
        features = self._features(images)
        head: Any = self.discriminator_side.head
        with torch.autocast(images.device.type, enabled=False):
            return [head(features, labels), features]

    def _features(self, images: Tensor) -> Tensor:
        extract: Any = self._compiled.get("features", self.discriminator_side.features)
        return at_least_float32(extract(images))

    def _judge_both(self, real: Tensor, fake: Tensor, labels: Tensor) -> list[Tensor]:
        """Logits of real and fake images, then the features of both where the head asks for them."""
        if self.fused_pass:
            both = [t.chunk(2) for t in self._judge(torch.cat([real, fake]), labels.repeat(2))]
        else:
            both = list(zip(self._judge(real, labels), self._judge(fake, labels), strict=True))
        return [tensor for pair in both for tensor in pair]


def _growing(network: nn.Module) -> list[Growing]:
    """The growing networks in it, or itself."""
    return [module for module in network.modules() if isinstance(module, Growing)]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Losses and penalties are computed in float32 where the networks ran in bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
