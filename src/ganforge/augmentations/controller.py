"""A probability that follows how sure the discriminator is of real images (Karras et al. 2020, arXiv:2006.06676)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ganforge.schedules import Value, ends, value_at


class Controller(nn.Module):
    """p in [0, 1], moved towards r_t = E[sign(D(real))] being `target` (section 3 of the paper).

    Each `every_kimg` thousand images p goes up by (images since the last move) / (1000 · speed_kimg) where r_t, taken
    over the logits since then, is above the target, and down by as much where it is below.

    Args:
        p: where it starts, in [0, 1]; or a schedule that it follows, with no target.
        target: of r_t; None holds p where it is, or to its schedule.
        speed_kimg: thousands of images in which p can go from 0 to 1.
        every_kimg: thousands of images from move to move; the paper's four mini-batches of 64.

    Raises:
        ValueError: a value outside its range, or a schedule beside a target.
    """

    averaged_over_ranks: ClassVar[tuple[str, ...]] = ("signs",)
    position: Tensor
    moved_at: Tensor
    signs: Tensor
    count: Tensor

    def __init__(self, p: Value, target: float | None, speed_kimg: float, every_kimg: float) -> None:
        super().__init__()
        if not all(0 <= end <= 1 for end in ends(p)):
            raise ValueError(f"p={p} is a probability: it must be from 0 to 1")
        if callable(p) and target is not None:
            raise ValueError(f"p={p} says how p changes, and so does target={target}: target=null")
        if target is not None and not -1 <= target <= 1:
            raise ValueError(f"target={target}: a mean of signs is from -1 to 1 (null holds p where it is)")
        for name, value in (("speed_kimg", speed_kimg), ("every_kimg", every_kimg)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be above 0 and finite")
        self.target = target
        self.schedule = p if callable(p) else None
        self.images = max(1, round(1000 * speed_kimg))
        self.every = 1000 * every_kimg
        # p is position / images: in whole numbers, which small steps move in any precision. `signs` adds up the means
        # of `count` equal batches.
        self.register_buffer("position", torch.tensor(round(value_at(p, 0.0) * self.images)))
        self.register_buffer("moved_at", torch.tensor(0))
        self.register_buffer("signs", torch.tensor(0.0))
        self.register_buffer("count", torch.tensor(0))

    def p_at(self, images_seen: int) -> Tensor:
        """Scalar float32, on the buffers' device: asking for it does not wait for the device."""
        if self.schedule is not None:
            return torch.full_like(self.signs, self.schedule(images_seen / 1000), dtype=torch.float32)
        return self.position.float() / self.images

    @torch.no_grad()
    def observe(self, real_logits: Tensor, images_seen: int) -> dict[str, Tensor]:
        """Takes in the logits (B,) of a discriminator step; returns p and the step's mean sign.

        `images_seen` is the same for all steps of a round, so that p moves in the first one only, by signs that all
        processes have averaged since.
        """
        signs = torch.sign(real_logits)
        if self.target is not None:
            since = images_seen - self.moved_at
            due = (since >= self.every) & (self.count > 0)
            direction = torch.sign(self.signs.float() / self.count.clamp(min=1) - self.target).long()
            self.position.add_(torch.where(due, direction * since, 0)).clamp_(0, self.images)
            self.moved_at.copy_(torch.where(due, images_seen, self.moved_at))
            self.signs.mul_(~due).add_(signs.mean())
            self.count.mul_(~due).add_(1)
        return {"p": self.p_at(images_seen), "rt": signs}
