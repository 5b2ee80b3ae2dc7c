"""The moving average of a figure of the game, the same on all ranks and after a resume."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """m <- d·m + (1 - d)·x after each of a player's steps, x the mean of what was added in it.

    In the first steps the plain mean of all so far, so that m does not start from an arbitrary 0. What a step adds
    counts from the next one on: by then the ranks have averaged it.

    Args:
        decay: d, in [0, 1).

    Raises:
        ValueError: a decay outside its range.
    """

    averaged_over_ranks: ClassVar[tuple[str, ...]] = ("pending",)
    value: Tensor
    steps: Tensor
    pending: Tensor
    count: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: of a moving average, it must be at least 0 and below 1")
        self.decay = decay
        self.register_buffer("value", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("pending", torch.tensor(0.0))  # the sum of `count` equal micro-batches' means
        self.register_buffer("count", torch.tensor(0))

    @property
    def known(self) -> Tensor:
        """Whether there is a value yet, bool."""
        return self.steps > 0

    @torch.no_grad()
    def add(self, figures: Tensor) -> None:
        self.pending.add_(figures.mean())
        self.count.add_(1)

    @torch.no_grad()
    def advance(self) -> None:
        """Once a step: takes in what was added, if anything was."""
        added = self.count > 0
        rate = (1 / (self.steps + 1)).clamp(min=1 - self.decay)
        self.value.add_(added * rate * (self.pending / self.count.clamp(min=1) - self.value))
        self.steps.add_(added)
        self.pending.zero_()
        self.count.zero_()
