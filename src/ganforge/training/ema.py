"""Exponential moving average of the generator side, with a half-life in images (Karras et al. 2018, 2020)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList

from ganforge.schedules import Value, ends, value_at


class EMA(nn.Module):
    """A second generator side whose weights and buffers trail the first.

    After a round that showed b images: average = lerp(current, average, beta), beta = 0.5 ** (b / half_life), where
    the half-life is at most `ramp_up` times the images seen so far, so that the first weights are soon forgotten.
    Batch-norm statistics are averaged like weights, and so match them; counters are copied. The singular vectors that
    spectral norm goes by are those of the averaged weights, found by a power iteration a round as in training: averages
    of unit vectors that turn are shorter than 1, and weights divided by too small a norm too large.

    Args:
        source: the generator side to start from.
        half_life_kimg: thousands of images after which a past weight counts half, or a schedule of it; 0 follows at
            once.
        ramp_up: bound of the half-life as a share of the images seen; None for no bound.
    """

    def __init__(self, source: nn.Module, half_life_kimg: Value, ramp_up: float | None = 0.05) -> None:
        super().__init__()
        if not all(0 <= end < math.inf for end in ends(half_life_kimg)):
            raise ValueError(f"ema.half_life_kimg={half_life_kimg} must be at least 0 and finite")
        self.half_life_kimg = half_life_kimg
        self.ramp_up = ramp_up
        self.average = copy.deepcopy(source).eval().requires_grad_(False)
        self._pairs: _Pairs | None = None

    def train(self, mode: bool = True) -> EMA:
        """The average is always in evaluation mode: it is only sampled from."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> EMA:
        self._pairs = None  # a move to another device replaces the tensors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def update(self, source: nn.Module, images_seen: int, images: int) -> None:
        """Follows `source` after a round that showed `images` images and ended at `images_seen`."""
        half_life = 1000 * value_at(self.half_life_kimg, images_seen / 1000)
        if self.ramp_up is not None:
            half_life = min(half_life, self.ramp_up * images_seen)
        beta = 0.5 ** (images / half_life) if half_life > 0 else 0.0
        if self._pairs is None:
            self._pairs = _Pairs(self.average, source)
        torch._foreach_lerp_(self._pairs.averaged, self._pairs.followed, 1.0 - beta)
        for mine, theirs in self._pairs.copied:
            mine.copy_(theirs)
        for norm, weight in self._pairs.spectral:
            norm.train()
            norm(weight)
            norm.eval()


class _Pairs:
    """The tensors of two equal modules side by side: floating-point ones to average, the others to copy.

    Attributes:
        spectral: spectral norms of the average, each with the weight that it divides.
    """

    def __init__(self, average: nn.Module, source: nn.Module) -> None:
        pairs = list(zip(_tensors(average), _tensors(source), strict=True))
        self.averaged = [mine for mine, _ in pairs if mine.is_floating_point()]
        self.followed = [theirs for _, theirs in pairs if theirs.is_floating_point()]
        self.copied = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]
        self.spectral = [
            (norm, weights.original)
            for weights in average.modules()
            if isinstance(weights, ParametrizationList)
            for norm in weights
            if isinstance(norm, _SpectralNorm)
        ]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in module.parameters()), *module.buffers()]
