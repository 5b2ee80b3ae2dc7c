"""APA (Jiang et al. 2021, "Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data",
arXiv:2111.06849).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ganforge.augmentations.augmentation import Augmentation
from ganforge.augmentations.controller import Controller
from ganforge.draws import Draws
from ganforge.schedules import Value


class AdaptivePseudoAugmentation(Augmentation):
    """With probability p, which follows the discriminator's overfitting, a fresh fake is shown as a real image.

    Its logits count as real ones for the controller as well, as in the authors' code. One more pass of the generator
    in each discriminator step.

    Args:
        p, target, speed_kimg, every_kimg: see `Controller`.
    """

    needs_images: ClassVar[bool] = False

    def __init__(
        self,
        p: Value = 0.0,
        target: float | None = 0.6,
        speed_kimg: float = 500.0,
        every_kimg: float = 0.256,
    ) -> None:
        super().__init__()
        self.controller = Controller(p, target, speed_kimg, every_kimg)

    @property
    def reads_signs(self) -> bool:
        return self.controller.target is not None

    def observe(self, real_logits: Tensor, images_seen: int) -> dict[str, Tensor]:
        return {f"apa_{name}": v for name, v in self.controller.observe(real_logits, images_seen).items()}

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        return images

    def shown_as_real(
        self, real: Tensor, make_fakes: Callable[[], Tensor], draws: Draws, images_seen: int
    ) -> Tensor:
        numbers = draws.uniform(len(real), *[1] * (real.ndim - 1), device=real.device)
        deceives = numbers < self.controller.p_at(images_seen)
        return torch.where(deceives, make_fakes().to(real.dtype), real)
