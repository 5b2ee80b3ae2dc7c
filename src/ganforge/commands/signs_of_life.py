"""Which of several processes the others wait for: each says from time to time how far it is."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from ganforge.evaluation.ranks import Ranks

_KEY = "ganforge/sign"
_NOT_YET = b"0 0"


class SignsOfLife(threading.Thread):
    """Writes this process's signs, and in the first process reads those of the others.

    A sign is a count that grows as long as the process is not held up as a whole, and the number of messages between
    processes that it has taken part in: the one that all wait for has one less than they.

    Args:
        store: what the processes met in; a connection of its own, as one that waits would hold up the signs.
        ranks: this process among the others, which have met.
        patience_seconds: how long a process may be silent.
    """

    def __init__(self, store: Any, ranks: Ranks, patience_seconds: float) -> None:
        super().__init__(daemon=True)
        self._store, self._ranks, self._patience = store.clone(), ranks, patience_seconds
        self._period = min(1.0, patience_seconds / 4)
        self._messages: Any = dist.group.WORLD._get_backend(torch.device("cpu"))  # type: ignore[union-attr]
        self._last = {rank: _NOT_YET for rank in range(1, ranks.size) if ranks.rank == 0}
        self._silent = dict.fromkeys(self._last, 0.0)
        self._done = threading.Event()
        self._store.set(f"{_KEY}/{ranks.rank}", _NOT_YET)

    def run(self) -> None:
        count, before = 0, time.monotonic()
        while not self._done.wait(self._period):
            count += 1
            try:
                self._store.set(f"{_KEY}/{self._ranks.rank}", f"{count} {self._number()}")
                now = time.monotonic()
                # No more than two periods at once: where all were held up for a while, none is to blame.
                self._read(min(now - before, 2 * self._period))
                before = now
            except RuntimeError:  # the store is gone, and the first process with it
                return

    def stop(self) -> None:
        """Before the process group and the store go."""
        self._done.set()
        self.join()

    def silent(self) -> str | None:
        """Which process gave no sign for so long that nobody should wait any longer, in words; None where all do."""
        return self._named([rank for rank, seconds in self._silent.items() if seconds >= self._patience])

    def missing(self) -> str | None:
        """Which process is not where this one waits for it in vain, in words; None where that is not known."""
        quiet = [rank for rank, seconds in self._silent.items() if seconds >= 3 * self._period]
        number = self._number()
        return self._named(quiet or [r for r, sign in self._last.items() if int(sign.split()[1]) < number])

    def _read(self, seconds: float) -> None:
        for rank, last in self._last.items():
            sign = self._store.get(f"{_KEY}/{rank}")
            self._silent[rank] = self._silent[rank] + seconds if sign == last else 0.0
            self._last[rank] = sign

    def _number(self) -> int:
        return int(self._messages._get_sequence_number_for_group())

    def _named(self, ranks: list[int]) -> str | None:
        names = " and ".join(map(str, ranks))
        return f"process{'es' if len(ranks) > 1 else ''} {names} of {self._ranks.size}" if ranks else None
