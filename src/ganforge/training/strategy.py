"""Ranks that hold the same players, each a share of every batch: Lightning's DDP without its wrapping."""

from __future__ import annotations

import os
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from ganforge.evaluation.ranks import Ranks


class PlayTogether(DDPStrategy):
    """Every rank holds both players and all buffers; the module averages the stepping player's gradients.

    DistributedDataParallel expects one loss and one backward pass for all parameters. Two players who alternate, with
    penalties and micro-batches, would need it to look for unused parameters in each pass; one flat all-reduce before
    each step needs nothing of the sort. The processes and their group are there already.

    Args:
        ranks: this process among those that play.
        devices: how many of them share a machine.
    """

    def __init__(self, ranks: Ranks, devices: int) -> None:
        super().__init__(cluster_environment=_Started(ranks, devices))

    def _configure_launcher(self) -> None:
        """Nothing to launch."""

    def setup(self, trainer: Any) -> None:
        # Lightning would ask all ranks before every round whether one got SIGTERM, and wait for the device to answer.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """In the place of wrapping: all start from the first rank's weights and buffers."""
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Rank 0 writes; what went wrong there is raised on every rank, so that all go on, or end, alike."""
        failure: OSError | None = None
        try:
            super().save_checkpoint(checkpoint, filepath, storage_options)
        except OSError as error:
            failure = error
        (failure,) = Ranks.current().from_first((failure,))
        if failure is not None:
            raise failure


class _Started(ClusterEnvironment):
    """Processes that something else has started and made a group of; those of a machine have neighbouring ranks."""

    def __init__(self, ranks: Ranks, devices: int) -> None:
        self._ranks, self._devices = ranks, devices

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise AssertionError("the group is there already")

    @property
    def main_port(self) -> int:
        raise AssertionError("the group is there already")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._ranks.size

    def set_world_size(self, size: int) -> None:
        assert size == self._ranks.size

    def global_rank(self) -> int:
        return self._ranks.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._ranks.rank

    def local_rank(self) -> int:
        return int(os.environ.get("LOCAL_RANK", self._ranks.rank % self._devices))

    def node_rank(self) -> int:
        return self._ranks.rank // self._devices
