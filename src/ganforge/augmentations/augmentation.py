"""What an augmentation is: a differentiable change of images that the discriminator sees, real and fake alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from ganforge.draws import Draws


class Augmentation(nn.Module, ABC):
    """Stands before the discriminator in both players' steps. What it learns of the game is kept in buffers.

    A module inside it names in `averaged_over_ranks` the buffers that each process gathers over its own share of a
    batch, of which the mean is to be taken.
    """

    needs_images: ClassVar[bool] = True
    """Makes no sense of vectors."""

    @abstractmethod
    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        """Images float32 (B, C, H, W) in [-1, 1], changed; gradients pass through to them.

        Args:
            draws: the round's randomness, the only one.
            images_seen: real images shown to the discriminator before this round.
        """

    def shown_as_real(
        self, real: Tensor, make_fakes: Callable[[], Tensor], draws: Draws, images_seen: int
    ) -> Tensor:
        """What the discriminator's step takes for real images, before `forward`: usually the real ones.

        Args:
            real: images (B, C, H, W), or vectors (B, D).
            make_fakes: gives fresh fakes of the same shape under the same labels, outside any graph.
        """
        return real

    @property
    def reads_signs(self) -> bool:
        """Whether `observe` takes the sign of a logit for a verdict, which some losses leave without a meaning."""
        return False

    def observe(self, real_logits: Tensor, images_seen: int) -> dict[str, Tensor]:
        """Called in each discriminator step with its logits of real images (B,); may change its strength.

        Returns:
            what is to be logged, by name.
        """
        return {}
