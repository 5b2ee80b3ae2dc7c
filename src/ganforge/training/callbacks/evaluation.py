"""Scores the moving average of the generator each n kimg with few samples, and at the end with many."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lightning import Trainer

from ganforge.games.sampling import generate, proportional_labels
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run, crossed

log = logging.getLogger("ganforge")


class Evaluation(Periodic):
    """Logs `val/<metric>` of samples whose labels have the data's class frequencies, and what made the figures.

    The last ones lie in the run's scores.json as well.

    Args:
        every_kimg: period; 0 for the end only.
        batch_size: samples generated at a time.
    """

    def __init__(self, every_kimg: float = 50.0, batch_size: int = 256) -> None:
        super().__init__(every_kimg)
        self.batch_size = batch_size

    def due(self, module: AdversarialModule, run: Run) -> bool:
        # A run that is asked to stop does so at once; its scores come after it is resumed.
        before = module.images_seen - module.images_per_round
        return crossed(self.every_kimg, before, module.images_seen) or run.reached_total(module.images_seen)

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        final = run.reached_total(module.images_seen)
        number = run.evaluator.final_num_samples if final else run.evaluator.num_samples
        if number == 0:
            return
        labels = proportional_labels(run.class_counts, number)
        batches = generate(
            module.game,
            module.ema.average,
            labels,
            seed=run.seed,
            batch_size=self.batch_size,
            device=module.device,
        )
        run.scores = run.evaluator.evaluate(batches, conditional=bool(run.class_counts))
        run.scored_at = module.images_seen
        run.loggers.metrics({f"val/{name}": value for name, value in run.scores.items()}, module.images_seen)
        run.loggers.summary({f"last/{name}": value for name, value in run.scores.items()})
        stamp = {"kimg": module.kimg, "num_samples": number, "seed": run.seed, **run.evaluator.stamp()}
        run.loggers.summary({f"made_by/{name}": value for name, value in stamp.items()})
        _write(run.folder / "scores.json", {"scores": run.scores, "made_by": stamp})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["evaluator"] = pl_module.run.evaluator.state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        pl_module.run.evaluator.load_state(checkpoint["evaluator"])


def _write(path: Path, scores: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(scores, indent=2) + "\n")
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)
