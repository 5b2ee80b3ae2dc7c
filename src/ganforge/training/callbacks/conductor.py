"""Ends the run: at its total of images, or after the round in which a signal asked it to."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from ganforge.training.callbacks.periodic import module_and_run


class Conductor(Callback):
    """Comes after every other callback, so that all have acted on the last round."""

    def __init__(self) -> None:
        self._signals: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning has set its own handlers by now; ours replace them until training ends.
        _, run = module_and_run(pl_module)
        self._signals = run.stopping_on_signals()
        self._signals.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, run = module_and_run(pl_module)
        trainer.should_stop = run.ends(module.images_seen)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._signals is not None:
            self._signals.__exit__(None, None, None)
            self._signals = None
