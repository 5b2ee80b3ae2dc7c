"""What conditioning is: how a label reaches a generator, by its first layer or by the norms of its blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn


class Conditioning(nn.Module, ABC):
    """From z and a label to what the first layer takes, and to what every norm takes beside its features.

    Args:
        latent_dim: length of z.
        num_classes: K; 0 without classes, where labels say nothing.

    Attributes:
        features: length of what the first layer takes.
    """

    def __init__(self, latent_dim: int, num_classes: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.features = latent_dim

    @abstractmethod
    def norm(self, channels: int) -> nn.Module:
        """A norm of so many channels: `(features (B, C, H, W), condition) -> (B, C, H, W)`."""

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """z float (B, latent_dim), labels int64 (B,) -> (B, features) for the first layer, and the norms' condition."""


MakeConditioning = Callable[[int, int], Conditioning]
"""`conditioning(latent_dim, num_classes)`: a class, or one with its own settings filled in."""
