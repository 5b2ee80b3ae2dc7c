"""What an augmentation is: a differentiable change of images that the discriminator sees, real and fake alike."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ganforge.draws import Draws


class Augmentation(nn.Module, ABC):
    """Stands before the discriminator in both players' steps. What it learns of the game is kept in buffers."""

    @abstractmethod
    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Images float32 (B, C, H, W) in [-1, 1], changed; gradients pass through to them.

        Args:
            draws: the round's randomness, the only one.
        """

    def observe(self, real_logits: Tensor, images_seen: int) -> dict[str, Tensor]:
        """Called after each discriminator step with its logits of real images (B,); may change its strength.

        Returns:
            what is to be logged, by name.
        """
        return {}
