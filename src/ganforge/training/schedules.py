"""Learning-rate schedules: pure functions of the images seen, so a resumed run needs no state of theirs."""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """Factor of the base learning rate after `kimg` thousands of images."""

    def __call__(self, kimg: float) -> float: ...


class Constant:
    """Factor 1 for ever."""

    def __call__(self, kimg: float) -> float:
        return 1.0


class _Decay:
    def __init__(self, total_kimg: float, start_kimg: float = 0.0, final_factor: float = 0.0) -> None:
        if not 0 <= start_kimg < total_kimg:
            raise ValueError(f"a schedule's start_kimg={start_kimg} must lie in [0, total_kimg={total_kimg})")
        self.total_kimg = total_kimg
        self.start_kimg = start_kimg
        self.final_factor = final_factor

    def _progress(self, kimg: float) -> float:
        return min(max((kimg - self.start_kimg) / (self.total_kimg - self.start_kimg), 0.0), 1.0)


class Linear(_Decay):
    """1 until `start_kimg`, then in a straight line to `final_factor` at `total_kimg`."""

    def __call__(self, kimg: float) -> float:
        return 1.0 - (1.0 - self.final_factor) * self._progress(kimg)


class Cosine(_Decay):
    """1 until `start_kimg`, then half a cosine to `final_factor` at `total_kimg` (Loshchilov & Hutter 2017)."""

    def __call__(self, kimg: float) -> float:
        return self.final_factor + (1.0 - self.final_factor) * 0.5 * (
            1.0 + math.cos(math.pi * self._progress(kimg))
        )
