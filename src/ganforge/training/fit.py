"""Plays a game until its total of images: one call from a command."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from ganforge.evaluation.ranks import Ranks
from ganforge.training.callbacks.agreement import Agreement
from ganforge.training.callbacks.conductor import Conductor
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.checkpoint_file import AtomicCheckpointIO
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.rollback import GoBackError, Rollbacks, go_back
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run
from ganforge.training.strategy import PlayTogether

log = logging.getLogger("ganforge")

_STEP_SECONDS = 0.05  # less than the progress bar's 0.2


def fit(
    module: AdversarialModule,
    rounds: Rounds,
    run: Run,
    callbacks: Sequence[Callback],
    checkpoint: Path | None = None,
    *,
    devices: int = 1,
    **trainer_arguments: Any,
) -> None:
    """Trains from the start, or exactly on from `checkpoint`; and from the last good one, when a check asks for it.

    Lightning's own progress bar, checkpoints, loggers and limits stay out: they count optimizer steps, not images.

    Where there is a process group, its ranks play as one.

    Args:
        devices: processes on this machine, with a device each.
        trainer_arguments: for `lightning.Trainer`: accelerator, num_nodes, precision, ...
    """
    _quieten_lightning()
    module.run = run
    while True:
        _apply(run.rollbacks, module, rounds)
        try:
            _play(module, rounds, run, callbacks, checkpoint, devices=devices, **trainer_arguments)
            return
        except (GoBackError, NonFiniteLossError):
            if not run.goes_back:
                raise
        checkpoint, images_seen = go_back(run.folder / "checkpoints", run.state())
        run.goes_back, run.scored_at, run.overfitting = False, -1, (-1, {})
        run.beside.clear()
        module.meter.clear()
        run.loggers.rolled_back(images_seen)
        log.warning("going on from %g kimg", images_seen / 1000)


def _apply(rollbacks: Rollbacks, module: AdversarialModule, rounds: Rounds) -> None:
    """What differs in a run that went back."""
    for player in module.players.values():
        player.factor = rollbacks.learning_rate_factor
    if rollbacks.seed is not None:
        module.seed = rounds.indices.seed = rollbacks.seed


def _play(
    module: AdversarialModule,
    rounds: Rounds,
    run: Run,
    callbacks: Sequence[Callback],
    checkpoint: Path | None,
    *,
    devices: int,
    **trainer_arguments: Any,
) -> None:
    ranks = Ranks.current()
    plugins: list[Any] = [AtomicCheckpointIO()]
    if ranks.size > 1:
        trainer_arguments["strategy"] = PlayTogether(ranks, devices)
    else:  # Lightning would believe SLURM's variables, and save in the middle of a round when SLURM signals
        plugins.append(LightningEnvironment())
    agreement = Agreement()
    trainer = Trainer(
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=plugins,
        callbacks=[agreement, *callbacks, Conductor()],
        default_root_dir=run.folder,
        devices=devices,
        use_distributed_sampler=False,  # rounds are dealt out to the ranks already
        **trainer_arguments,
    )
    _let_rounds_flow(module, agreement, callbacks)
    trainer.fit(module, datamodule=rounds, ckpt_path=checkpoint, weights_only=True)


def _let_rounds_flow(module: AdversarialModule, agreement: Agreement, callbacks: Sequence[Callback]) -> None:
    """Many rounds in one of Lightning's steps, unless someone wants to be called after each.

    What happens when stays as it was: a step ends with every round that a callback acts after. Several ranks may end
    their steps after different rounds: they meet in rounds and in callbacks, never between two steps.
    """
    periodic = [callback for callback in callbacks if isinstance(callback, Periodic)]
    module.interruptions = [agreement.due, *(callback.due for callback in periodic)]
    others = [callback for callback in callbacks if callback not in periodic]
    each = _heard(others, "on_train_batch_start", "on_train_batch_end")
    module.step_seconds = 0.0 if each else _STEP_SECONDS
    module.backward_is_heard = _heard(callbacks, "on_before_backward", "on_after_backward")


def _heard(callbacks: Sequence[Callback], *hooks: str) -> bool:
    """Whether one of the callbacks does something at one of Lightning's hooks."""
    return any(getattr(type(c), hook) is not getattr(Callback, hook) for c in callbacks for hook in hooks)


def _quieten_lightning() -> None:
    """Lightning's tips and its warnings about things that are so by design would hide the lines that matter."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
