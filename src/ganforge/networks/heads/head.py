"""What a head is: the last layers of a discriminator, and what else a label teaches both players."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Embedding)


class Finish(Protocol):
    """Initialises a layer as its network does, and normalises its weights where the network's are."""

    def __call__(self, layer: Layer) -> Layer: ...


def plain(layer: Layer) -> Layer:
    return layer


class Head(nn.Module, ABC):
    """From a discriminator's features to its logit for an image under a label.

    Args:
        features: D, the number of features.
        num_classes: K; 0 without classes.
        finish: what the network does to a layer.

    Raises:
        ValueError: the head needs classes, and there are none.
    """

    has_terms: ClassVar[bool] = False
    """Whether `discriminator_terms` and `generator_terms` give any."""

    needs_classes: ClassVar[bool] = False

    mixes_samples: ClassVar[bool] = False
    """A logit depends on the other images of its batch."""

    adversarial_as: ClassVar[str | None] = None
    """Where the terms hold the adversarial one, under the name "adversarial": the class of loss that they are a form of
    and stand in for. None where the game's loss is taken."""

    def __init__(self, features: int, num_classes: int, finish: Finish = plain) -> None:
        super().__init__()
        if self.needs_classes and num_classes < 2:
            raise ValueError(
                f"head {type(self).__name__} learns from labels, and there are {num_classes} classes: "
                "leave head=... out, or take data with classes"
            )

    @abstractmethod
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """features (B, D), labels int64 (B,) -> logits (B,); higher is more real."""

    def discriminator_terms(self, real: Tensor, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Named scalars that the discriminator minimises beside the adversarial one.

        Args:
            real, fake: float32 features (B, D) of images with the same labels.
            labels: int64 (B,).
        """
        return {}

    def generator_terms(self, fake: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Named scalars that the generator minimises beside the adversarial one."""
        return {}


MakeHead = Callable[[int, int, Finish], Head]
"""`head(features, num_classes, finish)`: a head class, or one with its own settings filled in."""
