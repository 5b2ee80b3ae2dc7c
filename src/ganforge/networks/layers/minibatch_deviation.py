"""Minibatch standard deviation (Karras et al. 2018, arXiv:1710.10196, section 3): shows a critic a lack of variety."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

MOMENTUM = 0.01


class MinibatchDeviation(nn.Module):
    """Adds one feature map: the standard deviation over a group of images, averaged over channels and places.

    Groups are neighbours in the batch, so that several ranks with a share each, or real and fake images passed
    together, make the groups that one rank, or two passes, would; the size of these is to be a multiple of the
    group's. Otherwise groups are of the largest size that divides both. In evaluation mode, where an image's logit is
    its own, the map is the average over training.

    Args:
        group_size: images in a group.
    """

    averaged_over_ranks: ClassVar[tuple[str, ...]] = ("running_deviation",)
    """Buffers that each process gathers over its own share of a batch."""

    running_deviation: Tensor

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size
        self.register_buffer("running_deviation", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """features (B, C, H, W) -> (B, C + 1, H, W)."""
        batch, _, height, width = features.shape
        if self.training:
            size = math.gcd(batch, self.group_size)
            groups = features.reshape(batch // size, size, *features.shape[1:]).float()
            deviations = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
            with torch.no_grad():
                self.running_deviation.lerp_(deviations.mean(), MOMENTUM)
            plane = deviations.repeat_interleave(size)
        else:
            plane = self.running_deviation.expand(batch)
        plane = plane.to(features.dtype).view(batch, 1, 1, 1).expand(-1, 1, height, width)
        return torch.cat([features, plane], dim=1)
