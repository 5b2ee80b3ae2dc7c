"""ADA (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ganforge.augmentations.augmentation import Augmentation
from ganforge.augmentations.controller import Controller
from ganforge.augmentations.pixels import blit, recolor, warp
from ganforge.draws import Draws
from ganforge.schedules import Value

KINDS = ("blit", "geometric", "color")


class AdaptiveDiscriminatorAugmentation(Augmentation):
    """Each change is made with probability p, which follows the discriminator's overfitting (see `Controller`).

    The changes, in order, with the strengths of appendix B:
        blit: mirror; turn by a quarter; shift by whole pixels, up to 1/8 of the width.
        geometric: scale by 2^N(0, 0.2²); turn; scale one axis against the other by 2^N(0, 0.2²); turn; shift by
            N(0, (1/8)²) of the width. Each turn has the probability 1 - √(1 - p), so that one of both has p.
        color: brightness + N(0, 0.2²); contrast · 2^N(0, 0.5²); luma turned over; hue turned; saturation · 2^N(0, 1).
            Where there are not three channels, brightness, contrast and luma alone.
    With p below 1 none of them hides what the fakes look like: they do not leak into them (section 2.2).

    Args:
        p: where the probability starts; or a schedule that it follows, with no target.
        target: of E[sign(D(real))]; None holds p where it is, or to its schedule.
        speed_kimg: thousands of images in which p can go from 0 to 1.
        every_kimg: thousands of images from move to move of p.
        kinds: of the changes to make.

    Raises:
        ValueError: a kind that is not known, or a number outside its range.
    """

    def __init__(
        self,
        p: Value = 0.0,
        target: float | None = 0.6,
        speed_kimg: float = 500.0,
        every_kimg: float = 0.256,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        super().__init__()
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"kinds=[{', '.join(kinds)}]: {kind} is not one of {', '.join(KINDS)}")
        self.controller = Controller(p, target, speed_kimg, every_kimg)
        self.kinds = tuple(kinds)

    @property
    def reads_signs(self) -> bool:
        return self.controller.target is not None

    def observe(self, real_logits: Tensor, images_seen: int) -> dict[str, Tensor]:
        return {f"ada_{name}": v for name, v in self.controller.observe(real_logits, images_seen).items()}

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        uniform = draws.uniform(len(images), 21, device=images.device)
        normal = draws.normal(len(images), 7, device=images.device)
        p = self.controller.p_at(images_seen)
        if "blit" in self.kinds:
            images = _blitted(images, p, uniform[:, :7])
        if "geometric" in self.kinds:
            images = _moved(images, p, uniform[:, 7:14], normal[:, :4])
        if "color" in self.kinds:
            images = _recolored(images, p, uniform[:, 14:], normal[:, 4:])
        return images


def _blitted(images: Tensor, p: Tensor, u: Tensor) -> Tensor:
    flip = (u[:, 0] < p) & (u[:, 1] < 0.5)
    quarters = torch.where(u[:, 2] < p, (4 * u[:, 3]).long(), 0)
    shift = torch.round((2 * u[:, 5:] - 1) * (images.shape[-1] / 8)).long()
    return blit(images, flip, quarters, torch.where(u[:, 4:5] < p, shift, 0))


def _moved(images: Tensor, p: Tensor, u: Tensor, g: Tensor) -> Tensor:
    p_turn = 1 - (1 - p).sqrt()
    gates = torch.stack([u[:, 0] < p, u[:, 1] < p_turn, u[:, 3] < p, u[:, 4] < p_turn, u[:, 6] < p], dim=1)
    scale, first_turn, stretch, second_turn, shift = gates.to(images.dtype).unbind(dim=1)
    grow = torch.exp2(-0.2 * g[:, 0] * scale)
    across = torch.exp2(-0.2 * g[:, 1] * stretch)
    # The inverse of: scale, turn, stretch, turn, shift.
    inverse = (
        _scaling(grow, grow)
        @ _turn(math.tau * u[:, 2] * first_turn)
        @ _scaling(across, 1 / across)
        @ _turn(math.tau * u[:, 5] * second_turn)
        @ _shift(-0.25 * g[:, 2:] * shift[:, None])
    )
    # What is not moved is not filtered either.
    return torch.where(gates.any(dim=1)[:, None, None, None], warp(images, inverse), images)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def _turn(angle: Tensor) -> Tensor:
    c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], dim=1).view(-1, 3, 3)


def _shift(by: Tensor) -> Tensor:
    matrix = torch.eye(3, dtype=by.dtype, device=by.device).repeat(len(by), 1, 1)
    matrix[:, :2, 2] = by
    return matrix


def _recolored(images: Tensor, p: Tensor, u: Tensor, g: Tensor) -> Tensor:
    gates = u[:, [0, 1, 2, 4, 6]] < p
    on = gates.to(images.dtype)
    brightness = 0.2 * g[:, 0] * on[:, 0]
    contrast = torch.exp2(0.5 * g[:, 1] * on[:, 1])
    over = on[:, 2] * (u[:, 3] < 0.5)
    if images.shape[1] == 3:
        matrix = _color_matrix(
            brightness, contrast, over, math.tau * u[:, 5] * on[:, 3], torch.exp2(g[:, 2] * on[:, 4])
        )
        changed = recolor(images, matrix)
        touched = gates.any(dim=1)
    else:
        factor = contrast * (1 - 2 * over)
        changed = (images + brightness[:, None, None, None]) * factor[:, None, None, None]
        touched = gates[:, :3].any(dim=1)
    return torch.where(touched[:, None, None, None], changed, images)


def _color_matrix(
    brightness: Tensor, contrast: Tensor, over: Tensor, hue: Tensor, saturation: Tensor
) -> Tensor:
    """(B, 4, 4) of the changes in their order, of which `over`, 0 or 1, mirrors at the plane without luma."""
    eye = torch.eye(3, dtype=brightness.dtype, device=brightness.device)
    luma = torch.full_like(eye, 1 / 3)  # projects on the grey axis v = (1, 1, 1) / √3: v vᵀ
    cross = torch.tensor(
        [[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=eye.dtype, device=eye.device
    ) / math.sqrt(3)
    over, cos, sin, saturation, contrast = (
        each[:, None, None] for each in (over, hue.cos(), hue.sin(), saturation, contrast)
    )
    turned = luma + cos * (eye - luma) + sin * cross  # about the grey axis (Rodrigues)
    linear = (luma + saturation * (eye - luma)) @ turned @ (eye - 2 * over * luma) * contrast
    shift = (linear.sum(dim=2) * brightness[:, None])[:, :, None]
    top = torch.cat([linear, shift], dim=2)
    return torch.cat([top, top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(top), 1, 4)], dim=1)
