"""Randomness as a function of (seed, round): the same numbers whatever process draws them, and whoever resumes."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from the parts, well mixed: neighbouring rounds and seeds give unrelated streams."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Draws:
    """One round's random numbers, for the whole global batch, of which every rank takes its own slice.

    Numbers are drawn on the CPU in the order they are asked for, and only then moved: a run gives the same numbers on
    every device. With `world_size` ranks each asking for `n` rows, `n * world_size` rows are drawn and rank r gets
    rows [r * n, (r + 1) * n): together the ranks see what one process would.

    Args:
        seed: the run's seed.
        round: the round's index, or any name of a moment ("samples", "evaluation").
        rank: this process's index in [0, world_size).
        world_size: number of processes that play the same game.
    """

    def __init__(self, seed: int, round: int | str, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self._generator = torch.Generator().manual_seed(derive_seed(seed, round))

    def normal(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Standard normal numbers, float32 (n, *shape)."""
        return self._share(torch.randn(n * self.world_size, *shape, generator=self._generator), n, device)

    def uniform(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Uniform numbers in [0, 1), float32 (n, *shape)."""
        return self._share(torch.rand(n * self.world_size, *shape, generator=self._generator), n, device)

    def integers(self, high: int, n: int, device: torch.device | str | None = None) -> Tensor:
        """Uniform integers in [0, high), int64 (n,)."""
        return self._share(torch.randint(high, (n * self.world_size,), generator=self._generator), n, device)

    def _share(self, whole: Tensor, n: int, device: torch.device | str | None) -> Tensor:
        return whole[self.rank * n : (self.rank + 1) * n].to(device, non_blocking=True)
