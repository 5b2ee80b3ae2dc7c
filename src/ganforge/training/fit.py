"""Plays a game until its total of images: one call from a command."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from ganforge.training.callbacks.conductor import Conductor
from ganforge.training.checkpoint_file import AtomicCheckpointIO
from ganforge.training.module import AdversarialModule
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run


def fit(
    module: AdversarialModule,
    rounds: Rounds,
    run: Run,
    callbacks: Sequence[Callback],
    checkpoint: Path | None = None,
    **trainer_arguments: Any,
) -> None:
    """Trains from the start, or exactly on from `checkpoint`.

    Lightning's own progress bar, checkpoints, loggers and limits stay out: they count optimizer steps, not images.

    Args:
        trainer_arguments: for `lightning.Trainer`: accelerator, devices, precision, ...
    """
    _quieten_lightning()
    module.run = run
    trainer = Trainer(
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO()],
        callbacks=[*callbacks, Conductor()],
        default_root_dir=run.folder,
        **trainer_arguments,
    )
    trainer.fit(module, datamodule=rounds, ckpt_path=checkpoint, weights_only=True)


def _quieten_lightning() -> None:
    """Lightning's tips and its warnings about things that are so by design would hide the lines that matter."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
