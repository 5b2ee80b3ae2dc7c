"""CoGAN (Liu & Tuzel 2016, "Coupled Generative Adversarial Networks", arXiv:1606.07536): two domains, never shown in
pairs, whose generators share their first layers and whose discriminators share their last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Batch, Turn
from ganforge.games.readout import shapes
from ganforge.games.synthesis import Synthesis, at_least_float32
from ganforge.losses.loss import Loss
from ganforge.networks.freezing import blocks_of_part
from ganforge.penalties.penalty import Penalty

SecondDomain = Literal["edges", "negatives"]


def edges(images: Tensor) -> Tensor:
    """Brightest less darkest of each pixel's 3x3 neighbours, (B, C, H, W) in [-1, 1]: bright outlines on black."""
    return F.max_pool2d(images, 3, stride=1, padding=1) + F.max_pool2d(-images, 3, stride=1, padding=1) - 1


def negatives(images: Tensor) -> Tensor:
    """-x."""
    return -images


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"edges": edges, "negatives": negatives}


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Modules that hold weights themselves, in the order in which the network made them, with their parent and name."""
    for name, module in network.named_children():
        if any(True for _ in module.parameters(recurse=False)) or is_parametrized(module):
            yield network, name, module
        else:
            yield from _layers(module)


def share_layers(first: nn.Module, second: nn.Module, own: int, *, last: bool) -> None:
    """Puts the first network's layers in the second one's place, all but `own`, of two networks of one kind.

    A layer is a module with weights; those with vectors only, such as a norm, belong to the layer before them.

    Args:
        own: how many layers each network keeps for itself.
        last: whether those are the last ones, or the first ones.

    Raises:
        ValueError: `own` is below 1, or leaves nothing to share.
    """
    pairs = list(zip(_layers(first), _layers(second), strict=True))
    number, starts = -1, []
    for (_, _, module), _ in pairs:
        number += any(p.ndim > 1 for p in module.parameters()) or number < 0
        starts.append(number)
    if not 0 < own <= number:
        raise ValueError(
            f"own={own}: of {number + 1} layers in {type(first).__module__}.{type(first).__name__} each domain keeps "
            f"1 to {number} for itself, and shares the others"
        )
    for index, ((_, _, module), (parent, name, _)) in zip(starts, pairs, strict=True):
        if (index <= number - own) if last else (index >= own):
            setattr(parent, name, module)


class Coupled(nn.Module):
    """Two networks, of which each sample's label says which one it is for.

    Args:
        first, second: `(inputs, labels) -> outputs`.
        domain_of: 0 or 1 for each label that can come; its remainder by `num_classes` is what the networks are told.
        num_classes: of the data; 0 without classes.
    """

    domain_of: Tensor

    def __init__(
        self, first: nn.Module, second: nn.Module, domain_of: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList([first, second])
        self.num_classes = max(1, num_classes)
        self.register_buffer("domain_of", torch.tensor(list(domain_of)), persistent=False)

    @property
    def blocks_in_order(self) -> list[list[str]]:
        """A block is that of both networks, shared or not."""
        both = zip(*(blocks_of_part(self, f"networks.{domain}") for domain in range(2)), strict=True)
        return [[*first, *second] for first, second in both]

    @property
    def latent_dim(self) -> int:
        return int(self.networks[0].latent_dim)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """inputs (B, ...), labels int64 (B,) -> outputs (B, ...) of each one's own network."""
        return self.each(inputs, labels, lambda network, own, classes: network(own, classes))

    def features(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of discriminators: (B, D)."""
        return self.each(images, labels, lambda network, own, _: network.features(own))  # type: ignore[operator]

    def each(
        self, inputs: Tensor, labels: Tensor, call: Callable[[nn.Module, Tensor, Tensor], Tensor]
    ) -> Tensor:
        domains, classes = self.domain_of[labels], labels % self.num_classes
        rows = [(domains == domain).nonzero()[:, 0] for domain in range(2)]
        made = [
            call(network, inputs[own], classes[own])
            for network, own in zip(self.networks, rows, strict=True)
            if len(own)
        ]
        return torch.cat(made)[torch.cat(rows).argsort()]


class CoGAN(Synthesis):
    """Two games of synthesis at once (equation 2), one a domain, tied by the weights that both have.

    The second domain is made of the data, or is some of its classes. Where it is made, every second image of a batch
    is shown as one of the second domain instead of the first, so a step has no image in both. In batches of an odd
    number either domain may have the one more.

    Samples are of the first domain where the second is made, so that figures compare them with the data; `pictures`
    has the pairs of one z.

    Args:
        make_generator, make_discriminator: give a network each time they are called.
        loss, penalties, augmentation: as in `Synthesis`.
        second: edges or negatives, what the second domain is made of; None where it is classes.
        second_classes: the classes that are the second domain; the others are the first.
        own_generator_layers, own_discriminator_layers: how many each domain has for itself; the paper's MNIST networks
            have 1 and 1.
        num_classes: of the data; 0 for an unconditional game.

    Raises:
        ValueError: both or neither of `second` and `second_classes`, classes that are not there or are all there are,
            layers that cannot be shared, edges of points, or a head that learns from labels by terms of its own.
    """

    unsupervised = True
    generator_side: Coupled
    discriminator_side: Coupled

    def __init__(
        self,
        make_generator: Callable[[], nn.Module],
        make_discriminator: Callable[[], nn.Module],
        loss: Loss,
        penalties: Mapping[str, Penalty] | None = None,
        augmentation: Augmentation | None = None,
        second: SecondDomain | None = "edges",
        second_classes: Sequence[int] | None = None,
        own_generator_layers: int = 1,
        own_discriminator_layers: int = 1,
        num_classes: int = 0,
    ) -> None:
        if (second is None) == (second_classes is None):
            raise ValueError(
                f"second={second}, second_classes={second_classes}: the second domain is one or the other, and the "
                "other is null"
            )
        if second is not None and second not in TRANSFORMS:
            raise ValueError(f"second={second}: it can be {', '.join(get_args(SecondDomain))}, or null")
        if second_classes is not None:
            there = set(range(num_classes))
            if not num_classes:
                raise ValueError(f"second_classes={list(second_classes)} needs labels: add conditional=true")
            if not set(second_classes) or not set(second_classes) < there:
                raise ValueError(
                    f"second_classes={list(second_classes)}: some of the classes 0 to {num_classes - 1}, not all"
                )
            domain_of = [int(label in set(second_classes)) for label in range(num_classes)]
        else:
            domain_of = [0] * max(1, num_classes) + [1] * max(1, num_classes)
        first, second_generator = make_generator(), make_generator()
        judge, second_judge = make_discriminator(), make_discriminator()
        head = getattr(judge, "head", None)
        if getattr(head, "has_terms", False):
            raise ValueError(
                f"head {type(head).__name__} does not go with game=cogan, whose labels say the domain as well"
            )
        if second == "edges" and len(shapes(first, judge).image) != 3:
            raise ValueError("second=edges: points have none, game.second=negatives goes with them")
        share_layers(first, second_generator, own_generator_layers, last=True)
        share_layers(judge, second_judge, own_discriminator_layers, last=False)
        super().__init__(
            Coupled(first, second_generator, domain_of, num_classes),
            Coupled(judge, second_judge, domain_of, num_classes),
            loss,
            penalties,
            augmentation,
        )
        self.second, self.num_classes = second, max(1, num_classes)

    def _at_this_time(self, batch: Batch, turn: Turn) -> Batch:
        batch = super()._at_this_time(batch, turn)
        if self.second is None:
            return batch
        images, labels = batch["images"], batch["labels"]
        n = len(images)
        first = turn.draws.rank * n + (turn.draws.one_of(2) if n % 2 else 0)
        domains = (torch.arange(n, device=labels.device) + first) % 2
        other = TRANSFORMS[self.second](images)
        chosen = domains.view(-1, *[1] * (images.ndim - 1)).bool()
        return {
            **batch,
            "images": torch.where(chosen, other, images),
            "labels": labels + self.num_classes * domains,
        }

    def _image_features(self, images: Tensor, labels: Tensor) -> Tensor:
        return at_least_float32(self.discriminator_side.features(images, labels))

    def pictures(
        self,
        draws: Draws,
        labels: Tensor,
        generator_side: nn.Module | None = None,
        real: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What both generators make of the same latents: the first domain above the second."""
        side = self.generator_side if generator_side is None else generator_side
        assert isinstance(side, Coupled)
        z = self._latents(draws, labels)
        of_domain = [labels % self.num_classes] * 2
        if self.second is None:  # a class of its own for each
            of_domain = [
                own[torch.arange(len(labels), device=labels.device) % len(own)]
                for own in ((side.domain_of == domain).nonzero()[:, 0] for domain in range(2))
            ]
        pairs = zip(side.networks, of_domain, strict=True)
        return {"pairs": torch.stack([at_least_float32(network(z, own)) for network, own in pairs])}
