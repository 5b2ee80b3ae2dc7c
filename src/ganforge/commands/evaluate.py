"""`ganforge evaluate`: the scores of a checkpoint, on the screen and beside it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from ganforge.commands import building
from ganforge.commands.checkpoints import Trained, choose_device, load_trained
from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.run_folder import make_folder
from ganforge.evaluation.evaluator import Evaluator
from ganforge.games.sampling import proportional_labels

log = logging.getLogger("ganforge")


def evaluate(config: DictConfig) -> dict[str, float]:
    """Scores `num_samples` samples with the run's own evaluator, or with `metrics=...`.

    The real side is what the checkpoint kept of it; where that is not enough, the run's data set.

    Raises:
        UserError: a checkpoint, metric or data set that cannot be used.
    """
    settings = plain(config)
    for key, least in (("num_samples", 2), ("batch_size", 1)):
        if settings[key] is not None and settings[key] < least:
            raise UserError(f"{key}={settings[key]} must be at least {least}")
    device = choose_device(settings["device"])
    trained = load_trained(
        settings["checkpoint"], ema=settings["ema"], device=device, trust=settings["trust"]
    )
    evaluator = _evaluator(trained, settings["metrics"], device, settings["trust"])
    number = settings["num_samples"] or evaluator.final_num_samples
    if number == 0:
        raise UserError(f"{trained.run} was trained with metrics=none: choose some, such as metrics=digits")
    out = Path(
        settings["out"] or trained.path.with_name(f"{trained.path.stem}_{evaluator.name}.json")
    ).expanduser()
    make_folder(out.parent, "out")
    labels = proportional_labels(trained.class_counts, number)
    batches = trained.samples(
        labels, seed=settings["seed"], batch_size=settings["batch_size"], what="evaluating"
    )
    with user_errors():
        scores = evaluator.evaluate(batches, conditional=bool(trained.class_counts))
    stamp = {
        **evaluator.stamp(),
        "num_samples": number,
        "seed": settings["seed"],
        "weights": "ema" if settings["ema"] else "raw",
        "checkpoint_sha256": trained.sha256,
        "kimg": trained.kimg,
        "comparable_with_papers": evaluator.comparable_with_papers,
    }
    _show(trained, evaluator, scores, number)
    with user_errors():
        out.write_text(json.dumps({"scores": scores, "made_by": stamp}, indent=2) + "\n")
    log.info("written to %s", out)
    return scores


def _evaluator(
    trained: Trained, asked: dict[str, Any] | None, device: torch.device, trust: list[str]
) -> Evaluator:
    """The asked-for evaluator, which needs the data, or the run's own with what the checkpoint kept of the data."""
    own = asked is None or asked == trained.config["metrics"]
    if asked is None:
        building.refuse_untrusted(trained.config["metrics"], "metrics", trust)
    evaluator: Evaluator = building.build(asked or trained.config["metrics"], "metrics")
    with user_errors():
        if own and trained.evaluator_state:
            evaluator.load_state(trained.evaluator_state)
            evaluator.prepare(None, device)
        else:
            building.refuse_untrusted(trained.config["data"], "data", trust)
            evaluator.prepare(building.build(trained.config["data"], "data"), device)
    return evaluator


def _show(trained: Trained, evaluator: Evaluator, scores: dict[str, float], number: int) -> None:
    note = "comparable with papers" if evaluator.comparable_with_papers else "not comparable with papers"
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        table.add_row(name, f"{value:.5g}")
    console = Console(soft_wrap=True)
    console.print(f"{trained.path.name} of {trained.run} at {trained.kimg:g} kimg, {number} samples")
    console.print(table)
    console.print(f"made by the {evaluator.name} extractor: {note}")
