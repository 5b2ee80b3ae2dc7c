"""Which GPUs each of several jobs at a time sees."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


class Gpus:
    """Deals out the GPUs of this machine: a job gets those that the fewest other jobs have.

    Args:
        names: as in CUDA_VISIBLE_DEVICES; without any a job sees what the sweep sees.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._jobs = dict.fromkeys(names, 0)

    @property
    def names(self) -> list[str]:
        return list(self._jobs)

    def take(self, number: int | None) -> list[str]:
        """The names of `number` of them for one job, or of all; fewer where there are not so many."""
        number = len(self._jobs) if number is None else number
        names = sorted(self._jobs, key=self._jobs.__getitem__)[:number]  # stable: the first ones first
        for name in names:
            self._jobs[name] += 1
        return names

    def give_back(self, names: Sequence[str]) -> None:
        for name in names:
            self._jobs[name] -= 1


def gpus_here() -> Gpus:
    """Those that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return Gpus([name.strip() for name in named.split(",") if name.strip() not in ("", "-1")])
    import torch  # seconds, not spent where the environment says it

    return Gpus([str(index) for index in range(torch.cuda.device_count())])


def wanted_by(trainer: Mapping[str, Any]) -> int | None:
    """How many GPUs a run with these settings takes: 0 on the CPU; None for all there are."""
    if trainer.get("accelerator", "auto") == "cpu":
        return 0
    devices = trainer.get("devices", 1)
    return None if devices == "auto" else int(devices)
