"""All ranks stop after the same round, whichever of them got the signal."""

from __future__ import annotations

import signal
import time
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer

from ganforge.evaluation.ranks import Ranks
from ganforge.training.callbacks.periodic import module_and_run
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run


class Agreement(Callback):
    """Comes before every other callback: they act on a last round as such. Nothing happens where a process is alone.

    The ranks talk about it each `every_seconds`, counted in rounds: so many rounds as the slowest of them expects to
    play in that time. The message is on the CPU, and so waits for no device.
    """

    every_seconds = 0.25
    most_rounds = 1000

    def __init__(self) -> None:
        self._ranks = Ranks()
        self._rounds = 1
        self._next = 0
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, _ = module_and_run(pl_module)
        self._ranks = Ranks.current()
        self._rounds, self._next = 1, module.round + 1
        self._since = time.perf_counter()

    def due(self, module: AdversarialModule, run: Run) -> bool:
        """Whether the ranks talk after the round that just ended; they do so after the same one."""
        return self._ranks.size > 1 and module.round >= self._next

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, run = module_and_run(pl_module)
        if not self.due(module, run):
            return
        now = time.perf_counter()
        rounds = int(self._rounds * self.every_seconds / max(now - self._since, 1e-9))
        message = torch.tensor([run.signal_seen or 0, -min(max(rounds, 1), self.most_rounds)])
        dist.all_reduce(message, dist.ReduceOp.MAX)
        number, fewest = message.tolist()
        self._rounds = -fewest
        self._next = module.round + self._rounds
        self._since = now
        if number:
            run.stop_signal = signal.Signals(number)
