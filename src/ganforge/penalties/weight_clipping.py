"""Small parameters bound the critic (Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from ganforge.penalties.penalty import Projection


@torch.no_grad()
def clip_(parameters: Iterable[Tensor], limit: float) -> None:
    """Clamp every number of the parameters to [-limit, limit], in place."""
    tensors = list(parameters)
    torch._foreach_clamp_min_(tensors, -limit)
    torch._foreach_clamp_max_(tensors, limit)


class WeightClipping(Projection):
    """w <- clamp(w, -clip, clip) for all of the discriminator's parameters that learn, after each of its steps.

    Args:
        clip: the largest size of a parameter, above 0; 0.01 in the paper.

    Raises:
        ValueError: a `clip` that is not above 0, or not finite.
    """

    bounds_critic: ClassVar[bool] = True

    def __init__(self, clip: float = 0.01) -> None:
        super().__init__()
        if not 0 < clip < math.inf:
            raise ValueError(f"clip={clip}: the largest size of a parameter must be above 0, as 0.01 is")
        self.clip = clip

    def project_(self, discriminator: nn.Module) -> None:
        clip_((p for p in discriminator.parameters() if p.requires_grad), self.clip)
