"""Work shared by several processes that leaves no trace in the result: dealt out and gathered in a fixed order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")

_MISSING: Any = object()


@dataclass(frozen=True)
class Ranks:
    """This process among those that play or evaluate together.

    Attributes:
        rank: its index, in [0, size).
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """As torch.distributed says; alone where it is not in use."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share: every `size`-th item from number `rank`."""
        return items[self.rank :: self.size]

    def gather(self, mine: list[T]) -> list[T]:
        """What all ranks made of their shares, in the order of the items, on rank 0; elsewhere an empty list."""
        if self.size == 1:
            return mine
        shares: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(mine, shares)
        rounds = chain.from_iterable(zip_longest(*(shares or []), fillvalue=_MISSING))
        return [item for item in rounds if item is not _MISSING]

    def from_first(self, value: T | None) -> T:
        """Rank 0's value, on every rank."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        assert value is not None
        return value

    @contextlib.contextmanager
    def first_ahead(self) -> Iterator[None]:
        """Rank 0 alone, then the others: what it downloads, or leaves in a cache, they find."""
        if self.size > 1 and self.rank:
            dist.barrier()
        try:
            yield
        finally:  # a failure too: the others meet it themselves
            if self.size > 1 and not self.rank:
                dist.barrier()
