"""Keeps the run: last.ckpt each n kimg and at the end, best.ckpt by score."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning import LightningModule, Trainer

from ganforge.training.callbacks.periodic import Periodic, module_and_run
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run

log = logging.getLogger("ganforge")


class Checkpoint(Periodic):
    """Writes checkpoints that resume exactly, and that sample and evaluate without anything else.

    Weights are checked first: a run that went NaN or infinite ends with its last good checkpoint in place.

    Args:
        every_kimg: period of last.ckpt.
        monitor: the score that best.ckpt is kept by, smaller being better; None takes the evaluator's own.
    """

    def __init__(self, every_kimg: float = 10.0, monitor: str | None = None) -> None:
        super().__init__(every_kimg)
        self.monitor = monitor

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        self._save(trainer, module, run, "last.ckpt")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, run = module_and_run(pl_module)
        if run.scored_at == module.images_seen:
            self._keep_best(trainer, module, run)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _keep_best(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        monitor = self.monitor or run.evaluator.monitor
        if not run.scores.get(monitor, math.nan) < run.best.get(monitor, math.inf):
            return
        run.best = {**run.scores, "kimg": module.kimg}
        run.loggers.summary({f"best/{name}": value for name, value in run.best.items()})
        with run.pause():
            self._save(trainer, module, run, "best.ckpt")

    def _save(self, trainer: Trainer, module: AdversarialModule, run: Run, name: str) -> None:
        module.check_finite()
        path = run.folder / "checkpoints" / name
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            log.error("%s could not be written, the one before it is kept: %s", path, error)
            if run.ends(module.images_seen) and name == "last.ckpt":
                raise

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        run = pl_module.run
        checkpoint["ganforge"] = {
            "config": run.config,
            "run": run.folder.name,
            "class_counts": list(run.class_counts),
            "class_names": list(run.class_names),
            "scores": dict(run.scores),
            "best": dict(run.best),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        pl_module.run.scores = dict(checkpoint["ganforge"]["scores"])
        pl_module.run.best = dict(checkpoint["ganforge"]["best"])
