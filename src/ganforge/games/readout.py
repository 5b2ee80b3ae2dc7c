"""A discriminator with one more network on its features, for games whose discriminator says more than one thing."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm

from ganforge.networks.freezing import blocks_of_part


class Readout(nn.Module):
    """Plays in the discriminator's place, and holds what else reads its features.

    Args:
        discriminator: with `features(images)` (B, D) and a `head`.
        readout: takes its features.
    """

    def __init__(self, discriminator: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.readout = readout

    @property
    def blocks_in_order(self) -> list[list[str]]:
        """The discriminator's, the readout beside the last one."""
        *first, last = blocks_of_part(self, "discriminator")
        return [*first, [*last, "readout"]]

    @property
    def head(self) -> Any:
        return self.discriminator.head

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> (B, D)."""
        features: Tensor = self.discriminator.features(images)  # type: ignore[operator]
        return features

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.discriminator(images, labels)
        return logits


def finished_like_the_head(layer: nn.Linear, discriminator: nn.Module) -> nn.Linear:
    """The layer, with spectral norm where the discriminator's head has it."""
    head: Any = getattr(discriminator, "head", None)
    if isinstance(head, nn.Module) and any(isinstance(module, _SpectralNorm) for module in head.modules()):
        spectral_norm(layer)
    return layer


class Shapes(NamedTuple):
    """Of one image, (C, H, W) or (D,), and how many features a discriminator has."""

    image: torch.Size
    features: int


@torch.no_grad()
def shapes(generator: nn.Module, discriminator: nn.Module) -> Shapes:
    """Found by a try in evaluation mode, which leaves the networks and the global random numbers as they were.

    Raises:
        ValueError: a discriminator without features and a head.
    """
    if not hasattr(discriminator, "features") or not hasattr(discriminator, "head"):
        raise ValueError(
            f"{type(discriminator).__module__}.{type(discriminator).__name__} has no features(images) with a head on "
            "them, which this game's further layers read: see docs/own_parts.md, or take another model=..."
        )
    modes = [(module, module.training) for net in (generator, discriminator) for module in net.modules()]
    extract: Any = discriminator.features
    latent_dim: Any = generator.latent_dim
    try:
        generator.eval(), discriminator.eval()
        with torch.random.fork_rng(devices=[]):
            images = generator(torch.zeros(2, latent_dim), torch.zeros(2, dtype=torch.int64))
            return Shapes(images.shape[1:], extract(images).shape[1])
    finally:
        for module, training in modes:
            module.training = training
