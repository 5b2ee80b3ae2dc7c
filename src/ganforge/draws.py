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
        truncation: bound of the absolute value of normal numbers; None for none.
    """

    def __init__(
        self,
        seed: int,
        round: int | str,
        rank: int = 0,
        world_size: int = 1,
        truncation: float | None = None,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.truncation = truncation
        self._generator = torch.Generator().manual_seed(derive_seed(seed, round))

    def normal(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Standard normal numbers, float32 (n, *shape), or those of the truncated normal distribution."""
        whole = torch.randn(n * self.world_size, *shape, generator=self._generator)
        if self.truncation is not None:
            whole = self._truncated(whole, self.truncation)
        return self._share(whole, n, device)

    def uniform(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Uniform numbers in [0, 1), float32 (n, *shape)."""
        return self._share(torch.rand(n * self.world_size, *shape, generator=self._generator), n, device)

    def integers(self, high: int, n: int, device: torch.device | str | None = None) -> Tensor:
        """Uniform integers in [0, high), int64 (n,)."""
        return self._share(torch.randint(high, (n * self.world_size,), generator=self._generator), n, device)

    def one_of(self, number: int) -> int:
        """A uniform integer in [0, number), the same for all ranks."""
        return int(torch.randint(number, (), generator=self._generator))

    def _truncated(self, numbers: Tensor, bound: float) -> Tensor:
        """The numbers, those beyond the bound drawn anew until none is: by the inverse of the distribution function."""
        lower = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
        levels = torch.rand(numbers.shape, generator=self._generator, dtype=torch.float64)
        anew = torch.special.ndtri(lower + levels * (1 - 2 * lower)).to(numbers.dtype)
        return torch.where(numbers.abs() <= bound, numbers, anew)

    def _share(self, whole: Tensor, n: int, device: torch.device | str | None) -> Tensor:
        return whole[self.rank * n : (self.rank + 1) * n].to(device, non_blocking=True)
