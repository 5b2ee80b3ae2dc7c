"""Means of logged values over an interval, kept on the device: one transfer an interval, none a round."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from ganforge.training.gradients import average_


class NonFiniteLossError(RuntimeError):
    """A term of the game, or a player's weights, became NaN or infinite; training from here on would be lost work."""


class Meter:
    """Collects detached tensors by name; `means()` hands out the means of their elements and starts the next interval.

    What is collected is reduced for many rounds at once: a round pays for no more than a list's `append`.
    """

    fold_at = 256  # bounds the memory of a long interval
    recent_at_most = 4096

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._folded: dict[str, tuple[Tensor, int]] = {}
        self._recent: dict[str, Tensor] = {}

    def add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            pending = self._values[prefix + name]
            pending.append(value.detach())
            if len(pending) >= self.fold_at:
                self._fold(prefix + name)

    def means(self) -> dict[str, float]:
        """Means by name since the last call, over all ranks, each of which has to ask.

        Raises:
            NonFiniteLossError: naming the first value that was NaN or infinite at any time in the interval.
        """
        for name in list(self._values):
            self._fold(name)
        if not self._folded:
            return {}
        names = list(self._folded)
        means = torch.stack([total / count for total, count in self._folded.values()])
        self._folded.clear()
        average_([means])  # first: what one rank finds not finite has to end all of them
        result = dict(zip(names, means.tolist(), strict=True))
        for name, mean in result.items():
            if not math.isfinite(mean):
                raise NonFiniteLossError(f"{name} became {mean}")
        return result

    def recent(self) -> dict[str, Tensor]:
        """The last elements, float (n,), of this rank's vectors in the interval that `means` has ended, by name."""
        recent, self._recent = self._recent, {}
        return recent

    def _fold(self, name: str) -> None:
        pending = self._values.pop(name)
        total, count = self._folded.get(name, (0.0, 0))
        values = torch.stack(pending) if pending[0].ndim == 0 else torch.cat([v.reshape(-1) for v in pending])
        if pending[0].ndim and values.is_floating_point():
            before = self._recent.get(name, values[:0])
            self._recent[name] = torch.cat([before, values])[-self.recent_at_most :]
        self._folded[name] = (values.sum(dtype=torch.float64) + total, count + values.numel())
