"""Scores the moving average of the generator each n kimg with few samples, and at the end with many."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from lightning import Trainer

from ganforge.evaluation.evaluator import NonFiniteSamplesError
from ganforge.evaluation.ranks import Ranks
from ganforge.evaluation.stamp import Stamp, protocol
from ganforge.games.sampling import (
    BatchNormMode,
    GameModel,
    Manner,
    generate,
    proportional_labels,
    sampler,
)
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run, crossed

log = logging.getLogger("ganforge")


class Evaluation(Periodic):
    """Logs `val/<figure>` of samples whose labels have the data's class frequencies, and what made them.

    At the end comes one more evaluation, `final/<figure>`, with `final_num_samples`: another number of samples is
    another protocol, and two protocols do not share a curve. A run that is resumed with other metrics goes on in
    `val_2/`. The final figures lie in the run's scores.json as well. Each evaluation asks whether the run has seen
    enough.

    Args:
        every_kimg: period; 0 for the end only.
        batch_size: samples generated at a time.
        truncation, truncation_psi, batch_norm, balanced: how samples are made, see `Manner`.
    """

    def __init__(
        self,
        every_kimg: float = 50.0,
        batch_size: int = 256,
        truncation: float | None = None,
        truncation_psi: float | None = None,
        batch_norm: BatchNormMode = "running",
        balanced: bool = False,
    ) -> None:
        super().__init__(every_kimg)
        self.batch_size = batch_size
        self.manner = Manner(truncation, truncation_psi, batch_norm, balanced)

    def due(self, module: AdversarialModule, run: Run) -> bool:
        # A run that is asked to stop does so at once; its scores come after it is resumed.
        before = module.images_seen - module.images_per_round
        return crossed(self.every_kimg, before, module.images_seen) or run.reached_total(module.images_seen)

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        few, many = run.evaluator.num_samples, run.evaluator.final_num_samples
        if few == 0:
            return
        module.check_finite()
        run.scores, stamp = self._score(module, run, few)
        run.scored_at = module.images_seen
        curve = _curve(run, stamp)
        run.loggers.metrics({f"{curve}/{k}": value for k, value in run.scores.items()}, module.images_seen)
        _note(module, run, curve, run.scores, stamp)
        run.loggers.summary({f"last/{name}": value for name, value in run.scores.items()})
        self._decide(module, run)
        made_by, run.final_scores = stamp, run.scores
        if run.finishes(module.images_seen):
            if many != few:
                run.final_scores, made_by = self._score(module, run, many)
                run.loggers.metrics(
                    {f"final/{name}": value for name, value in run.final_scores.items()}, module.images_seen
                )
                _note(module, run, "final", run.final_scores, made_by)
            self._conclude(module, run, made_by)
        run.loggers.table("evaluations", run.evaluations, module.images_seen)
        result: dict[str, Any] = {
            "scores": run.final_scores,
            "made_by": made_by,
            "better": dict(run.evaluator.figures),
            "monitor": run.evaluator.monitor,
            "curves": {_curve_name(place): made for place, made in enumerate(run.protocols)},
        }
        if run.ended_because is not None or run.pruned:
            result["stopped"] = _stopped(module, run)
        if trainer.is_global_zero:
            _write(run.folder / "scores.json", result)

    def _decide(self, module: AdversarialModule, run: Run) -> None:
        """Whether the run ends here, before its total."""
        if run.stopping is not None:
            run.ended_because = run.stopping.reason(run.scores, module.kimg)
        if run.ended_because is not None:
            log.info("%s after %.0f s: the run ends at %g kimg", run.ended_because, run.seconds, module.kimg)
        elif run.goes_on is not None and not run.reached_total(module.images_seen):
            run.pruned = not Ranks.current().from_first(run.goes_on(run.scores, module.images_seen))
            if run.pruned:
                log.info("pruned: others are better at %g kimg", module.kimg)
                run.loggers.summary({f"stop/{key}": value for key, value in _stopped(module, run).items()})

    def _score(self, module: AdversarialModule, run: Run, number: int) -> tuple[dict[str, float], Stamp]:
        labels = proportional_labels(self.manner.classes(run.class_counts), number)
        side = self.manner.side(module.game, module.ema.average, run.class_counts, self.batch_size)
        ranks = Ranks.current()
        batches = generate(
            sampler(module.game, side),
            labels,
            seed=run.seed,
            batch_size=self.batch_size,
            device=module.device,
            truncation=self.manner.truncation,
            rank=ranks.rank,
            ranks=ranks.size,
        )
        model = GameModel(module.game, side, len(run.class_counts), module.device)
        try:
            scores = run.evaluator.evaluate(batches, conditional=bool(run.class_counts), model=model)
        except NonFiniteSamplesError as error:
            raise NonFiniteLossError(str(error)) from error
        stamp = run.evaluator.stamp()
        stamp["generated"] = {
            "num_samples": number,
            "seed": run.seed,
            "kimg": module.kimg,
            "weights": "ema",
            **self.manner.facts(module.ema.average, run.class_counts, self.batch_size),
        }
        return scores, {"protocol": protocol(stamp), **stamp}

    def _conclude(self, module: AdversarialModule, run: Run, stamp: Stamp) -> None:
        run.loggers.summary({f"final/{name}": value for name, value in run.final_scores.items()})
        run.loggers.config({"final_evaluation": stamp})
        if run.ended_because is not None:
            run.loggers.summary({f"stop/{name}": value for name, value in _stopped(module, run).items()})


def _note(module: AdversarialModule, run: Run, curve: str, scores: dict[str, float], stamp: Stamp) -> None:
    """One more row of the table of evaluations."""
    facts = {"protocol": stamp["protocol"], "extractor": run.evaluator.name}
    number = stamp["generated"]["num_samples"]
    run.evaluations.append({"curve": curve, "kimg": module.kimg, "num_samples": number, **facts, **scores})


def _stopped(module: AdversarialModule, run: Run) -> dict[str, Any]:
    """Why the run ended, after how many images and how long: time to quality where a target was reached."""
    return {"reason": run.ended_because or "pruned", "kimg": module.kimg, "seconds": round(run.seconds, 3)}


def _curve(run: Run, stamp: Stamp) -> str:
    """The name under which figures of this protocol are drawn: another protocol begins another curve."""
    if stamp["protocol"] not in run.protocols:
        run.protocols.append(stamp["protocol"])
        run.loggers.config({"evaluation": stamp})
        if len(run.protocols) > 1:
            log.warning(
                "scores are made otherwise than before: their curves are val_%d/...", len(run.protocols)
            )
    return _curve_name(run.protocols.index(stamp["protocol"]))


def _curve_name(place: int) -> str:
    return f"val_{place + 1}" if place else "val"


def _write(path: Path, scores: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(scores, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)
