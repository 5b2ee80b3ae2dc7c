"""FastGAN's self-supervision of the discriminator (Liu et al. 2021, arXiv:2101.04775, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ganforge.draws import Draws
from ganforge.penalties.penalty import DiscriminatorPenalty
from ganforge.schedules import Value


def quarters(images: Tensor) -> Tensor:
    """images (B, C, H, W) -> their quarters (B, 4, C, H/2, W/2), from left to right and from top to bottom."""
    batch, channels, height, width = images.shape
    parts = images.reshape(batch, channels, 2, height // 2, 2, width // 2)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


class Reconstruction(DiscriminatorPenalty):
    """λ · (E|D_8(f_8) - T(x)| + E|D_16(quarter of f_16) - T(the same quarter of x)|) of real images x; λ is `weight`.

    f_16 and f_8 are the discriminator's maps of 16x16 and 8x8, D_16 and D_8 decoders that it trains beside itself, T
    averages pixels to the decoders' size, and each image's quarter is drawn at random. |·| is the mean over an image's
    numbers, where the paper has LPIPS, whose weights would be another network's.

    For discriminators with `add_decoders()` and `reconstruct(images, which) -> (whole, quarter)`.

    Args:
        weight, every: see `Penalty`.
    """

    def __init__(self, weight: Value = 1.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def prepare(self, discriminator: nn.Module) -> None:
        if not (hasattr(discriminator, "add_decoders") and hasattr(discriminator, "reconstruct")):
            raise ValueError(
                f"penalty=[reconstruction] needs a discriminator that can reconstruct images, and "
                f"{type(discriminator).__module__} has none: model=fastgan with game=synthesis has"
            )
        discriminator.add_decoders()  # type: ignore[operator]

    def forward(self, discriminator: nn.Module, real: Tensor, draws: Draws) -> Tensor:
        which = draws.integers(4, len(real), device=real.device)
        whole, quarter = discriminator.reconstruct(real, which)  # type: ignore[operator]
        chosen = quarters(real)[torch.arange(len(real), device=real.device), which]
        term = _distance(whole, real) + _distance(quarter, chosen)
        return self.weight * term


def _distance(made: Tensor, images: Tensor) -> Tensor:
    """E|made - images|, the images averaged to the size of what was made."""
    return (made - adaptive_avg_pool2d(images, made.shape[-1])).abs().mean()
