"""Keeps the run: last.ckpt each n kimg and at the end, the best ones by score."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning import LightningModule, Trainer

from ganforge.training.callbacks.periodic import Periodic, module_and_run
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run
from ganforge.training.stopping import is_better

log = logging.getLogger("ganforge")


class Checkpoint(Periodic):
    """Writes checkpoints that resume exactly, and that sample and evaluate without anything else.

    Weights are checked first: a run that went NaN or infinite ends with its last good checkpoint in place.

    Args:
        every_kimg: period of last.ckpt.
        monitor: the score that the best are kept by, in its better direction; None takes the evaluator's own.
        best_k: how many of the best to keep. best.ckpt is the best; of several each has a file named after its kimg.
    """

    def __init__(self, every_kimg: float = 10.0, monitor: str | None = None, best_k: int = 1) -> None:
        super().__init__(every_kimg)
        if best_k < 0:
            raise ValueError(f"best_k={best_k} must be at least 0 (0: keep last.ckpt only)")
        self.monitor = monitor
        self.best_k = best_k

    def check(self, run: Run) -> None:
        sided = [name for name, better in run.evaluator.figures.items() if better != "neither"]
        if self.monitor is not None and self.monitor not in sided:
            raise ValueError(
                f"callbacks.checkpoint.monitor={self.monitor} is no figure to keep the best by; "
                f"it can be {', '.join(sided)}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        _, run = module_and_run(pl_module)
        if run.best:
            _tell(run)

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        self._save(trainer, module, run, "last.ckpt")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, run = module_and_run(pl_module)
        if run.scored_at == module.images_seen and self.best_k:
            self._keep_if_good(trainer, module, run)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _keep_if_good(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        monitor = self.monitor or run.evaluator.monitor
        value, better = run.scores.get(monitor, math.nan), run.evaluator.figures.get(monitor, "neither")
        if math.isnan(value) or better == "neither":
            return
        place = sum(not is_better(better, value, kept) for kept, _ in run.kept)
        if place >= self.best_k:
            return
        run.kept.insert(place, (value, module.kimg))
        dropped = run.kept[self.best_k :]
        del run.kept[self.best_k :]
        if place == 0:
            run.best = {**run.scores, "kimg": module.kimg}
            run.loggers.summary({f"best/{name}": value for name, value in run.best.items()})
        with run.pause():
            if place == 0:
                self._save(trainer, module, run, "best.ckpt")
                _tell(run)
            if self.best_k > 1:
                self._save(trainer, module, run, _name(module.kimg))
        for _, kimg in dropped:
            (run.folder / "checkpoints" / _name(kimg)).unlink(missing_ok=True)

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
        checkpoint["ganforge"] = pl_module.run.state()
        checkpoint["evaluator"] = pl_module.run.evaluator.state()


def _tell(run: Run) -> None:
    run.loggers.checkpoint(run.folder / "checkpoints" / "best.ckpt", run.best)


def _name(kimg: float) -> str:
    return f"best_{kimg:010.3f}_kimg.ckpt"
