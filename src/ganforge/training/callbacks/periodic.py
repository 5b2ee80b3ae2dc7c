"""The base of the callbacks: something done each n kimg, at the start if asked, and at the end."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run, crossed


class Periodic(Callback):
    """Calls `act` at the end of each round in which the clock crosses a multiple of `every_kimg`, and of the last.

    Args:
        every_kimg: period in thousands of images; 0 for the last round only.
    """

    at_start = False

    def __init__(self, every_kimg: float) -> None:
        if every_kimg < 0:
            raise ValueError(f"every_kimg={every_kimg} must be at least 0 (0: at the end only)")
        self.every_kimg = every_kimg

    def check(self, run: Run) -> None:
        """Raises ValueError, before training starts, for settings that do not fit the run."""

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        raise AssertionError("a periodic callback says what it does")

    def due(self, module: AdversarialModule, run: Run) -> bool:
        """Whether the round that just ended is one to act after."""
        before = module.images_seen - module.images_per_round
        return crossed(self.every_kimg, before, module.images_seen) or run.ends(module.images_seen)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, run = module_and_run(pl_module)
        if self.at_start and module.images_seen == 0:
            with run.pause():
                self.act(trainer, module, run)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, run = module_and_run(pl_module)
        if self.due(module, run):
            with run.pause():
                self.act(trainer, module, run)


def module_and_run(pl_module: LightningModule) -> tuple[AdversarialModule, Run]:
    assert isinstance(pl_module, AdversarialModule)
    assert pl_module.run is not None
    return pl_module, pl_module.run
