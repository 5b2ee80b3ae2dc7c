"""What the tests of training share: a way to play a game without the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback

from ganforge.datasets.samples import Samples
from ganforge.evaluation.evaluator import NoEvaluation
from ganforge.training.fit import fit
from ganforge.training.loggers.logger import Logger, Loggers
from ganforge.training.module import AdversarialModule
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run

Play = Callable[..., Run]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Plays `rounds` rounds of a module on a data set, on the CPU."""

    def play(
        module: AdversarialModule,
        data: Samples,
        rounds: int,
        *,
        callbacks: Sequence[Callback] = (),
        loggers: dict[str, Logger] | None = None,
        checkpoint: Path | None = None,
        precision: Any = "32-true",
        **facts: Any,
    ) -> Run:
        run = Run(
            folder=tmp_path,
            loggers=Loggers(loggers or {}),
            evaluator=NoEvaluation(),
            total_images=rounds * module.images_per_round,
            **facts,
        )
        stream = Rounds(
            data,
            conditional=True,
            images_per_round=module.images_per_round,
            seed=module.seed,
            start=lambda: module.images_seen,
        )
        fit(module, stream, run, callbacks, checkpoint, accelerator="cpu", devices=1, precision=precision)
        return run

    return play
