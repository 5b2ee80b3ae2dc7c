"""`ganforge evaluate`: the scores of a generator or of any images, and the protocol that made them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ganforge.commands import building
from ganforge.commands.checkpoints import Trained, choose_device, load_trained
from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.options import options
from ganforge.commands.processes import sharing
from ganforge.commands.run_folder import make_folder
from ganforge.commands.sources import Generator, Source, checkpoint_generator, open_source
from ganforge.evaluation.evaluator import Evaluator, KnownStatistics, RealData
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.memorisation import nearest_training_images
from ganforge.evaluation.stamp import Stamp, protocol
from ganforge.evaluation.statistics_file import write_statistics
from ganforge.images import grid, save_png

log = logging.getLogger("ganforge")

NEAREST = 5


def evaluate(config: DictConfig) -> dict[str, float]:
    """Scores a checkpoint, or anything `generated` names, against the run's own data, or anything `real` names.

    Raises:
        UserError: a source, metric or setting that cannot be used.
    """
    settings = plain(config)
    _check(settings)
    with sharing(settings["processes"]) as team:
        return _evaluate(settings, first=team.ranks.rank == 0)


@dataclass
class _Comparison:
    """What is compared, opened.

    Attributes:
        generated: None when only statistics of the real side are wanted.
        real: None when the checkpoint's own memory of its data serves.
        trained: the checkpoint behind `generated`, if one is.
    """

    generated: Source | None
    real: Source | None
    held_out: RealData | None
    trained: Trained | None


def _check(settings: Mapping[str, Any]) -> None:
    least_of = {
        "num_samples": 4,
        "batch_size": 1,
        "seeds": 1,
        "bootstrap": 0,
        "neighbours": 0,
        "image_size": 1,
    }
    for key, least in least_of.items():
        if settings[key] is not None and settings[key] < least:
            raise UserError(f"{key}={settings[key]} must be at least {least}")
    if settings["truncation"] is not None and not settings["truncation"] > 0:
        raise UserError(f"truncation={settings['truncation']} must be greater than 0")
    if settings["checkpoint"] is not None and settings["generated"] is not None:
        raise UserError("checkpoint=... and generated=... name the same side: give one of them")
    if settings["checkpoint"] is settings["generated"] is None and not (
        settings["save_stats"] and settings["real"]
    ):
        raise UserError("checkpoint=RUN or generated=SOURCE is needed; ganforge evaluate --help has examples")


def _evaluate(settings: dict[str, Any], *, first: bool) -> dict[str, float]:
    device = choose_device(settings["device"])
    sides = _open(settings, device)
    evaluator = _evaluator(settings, sides, device)
    if settings["save_stats"] is not None and first:
        _save_statistics(Path(settings["save_stats"]).expanduser(), evaluator)
    if sides.generated is None:
        return {}
    out = _out(settings, sides, evaluator)
    if first:
        make_folder(out.parent, "out")
    with user_errors():
        scores, generated = _scores(settings, sides.generated, evaluator)
    stamp = {**evaluator.stamp(), "generated": generated}
    stamp = {"protocol": protocol(stamp), **stamp}
    if first:
        _show(_title(sides), scores, evaluator, stamp)
        with user_errors():
            out.write_text(json.dumps({"scores": scores, "made_by": stamp}, indent=2) + "\n")
            log.info("written to %s", out)
            if settings["neighbours"]:
                _draw_neighbours(
                    settings, sides.generated, evaluator, out.with_name(f"{out.stem}_neighbours.png")
                )
    return scores


def _open(settings: dict[str, Any], device: torch.device) -> _Comparison:
    """Opens what the settings name; the checkpoint's own configuration fills what they leave out."""
    where = "checkpoint" if settings["checkpoint"] is not None else "generated"
    named = settings[where]
    trained = None
    generated: Source | None = None
    counts: Sequence[int] = ()
    if settings["checkpoint"] is not None:
        trained = load_trained(named, ema=settings["ema"], device=device, trust=settings["trust"])
        generated = checkpoint_generator(trained, settings)
    real = None
    if settings["real"] is not None:
        real = open_source("real", settings["real"], settings, device)
        if not isinstance(real, Generator | KnownStatistics) and real.num_classes:
            counts = torch.bincount(real.labels, minlength=real.num_classes).tolist()
    if generated is None and named is not None:
        generated = open_source(where, named, settings, device, counts)
    held_out = None
    if settings["held_out"] is not None:
        source = open_source("held_out", settings["held_out"], settings, device)
        if isinstance(source, Generator | KnownStatistics):
            raise UserError(f"held_out={settings['held_out']} should be real images")
        held_out = source
    if real is None and trained is None:
        if settings["save_stats"] is None or generated is None:
            raise UserError(
                "real=SOURCE is needed: what the generated images are to be compared with; ganforge evaluate --help "
                "has examples"
            )
        real, generated = generated, None
    return _Comparison(generated, real, held_out, trained)


def _evaluator(settings: dict[str, Any], sides: _Comparison, device: torch.device) -> Evaluator:
    """The asked-for metrics, or the checkpoint's, or Inception's, with the real side read."""
    trained, asked = sides.trained, settings["metrics"]
    own = trained is not None and asked in (None, trained.config["metrics"])
    if asked is None and trained is not None:
        building.refuse_untrusted(trained.config["metrics"], "metrics", settings["trust"])
        asked = trained.config["metrics"]
    if asked is None:
        asked = plain(compose("evaluate", overrides=["metrics=inception"]))["metrics"]
    if settings["compute"] is not None:
        asked = _with_compute(asked, settings["compute"])
    if settings["bootstrap"]:
        asked = _with_bootstrap(asked, settings["bootstrap"])
    evaluator: Evaluator = building.build(asked, "metrics")
    if evaluator.num_samples == 0:
        raise UserError("metrics=none gives no scores: choose some, such as metrics=digits")
    with user_errors():
        real = sides.real
        if isinstance(real, Generator):
            number = settings["num_samples"] or evaluator.final_num_samples
            real = real.as_data(number, seed=settings["seed"], batch_size=settings["batch_size"])
        if real is None and trained is not None:
            if own and trained.evaluator_state and not _wants_images(evaluator):
                evaluator.load_state(trained.evaluator_state)
            else:
                building.refuse_untrusted(trained.config["data"], "data", settings["trust"])
                real = building.build(trained.config["data"], "data")
        evaluator.prepare(real, device, sides.held_out)
    return evaluator


def _wants_images(evaluator: Evaluator) -> bool:
    return isinstance(evaluator, FeatureEvaluator) and evaluator.num_images > 0


def _with_compute(metrics: Any, names: Sequence[str]) -> Any:
    """The metrics' settings with other things to compute, wherever they name some."""
    known = options()["metrics/compute"]
    for name in names:
        if name not in known:
            raise UserError(
                f"metrics.compute: there is no {name!r}{did_you_mean(name, known)}; it can be {', '.join(known)}"
            )
    chosen = f"metrics/compute=[{','.join(names)}]"
    compute = plain(compose("evaluate", overrides=["metrics=digits", chosen]))["metrics"]["compute"]

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: compute if k == "compute" else replaced(value) for k, value in node.items()}
        return [replaced(value) for value in node] if isinstance(node, list) else node

    if "compute" not in metrics:
        raise UserError("metrics.compute=... has no use here: these metrics compute one thing")
    return replaced(metrics)


def _with_bootstrap(metrics: dict[str, Any], resamples: int) -> dict[str, Any]:
    """The metrics' settings with `bootstrap` in every one that has it."""
    if "compute" not in metrics:
        raise UserError("bootstrap=... has no use here: these metrics have no such interval")
    compute = {
        name: {**node, "bootstrap": resamples} if "bootstrap" in node else node
        for name, node in metrics["compute"].items()
    }
    return {**metrics, "compute": compute}


def _scores(
    settings: Mapping[str, Any], generated: Source, evaluator: Evaluator
) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores, with standard deviations over seeds where several are asked for; and the stamp's section."""
    if not isinstance(generated, Generator):
        if settings["seeds"] > 1:
            raise UserError(
                "seeds=... is for generators: files hold the samples that they hold; bootstrap=200 resamples them"
            )
        scores = evaluator.evaluate_data(generated)
        known = isinstance(generated, KnownStatistics)
        facts = {
            "num_samples": None if known else len(generated),  # type: ignore[arg-type]
            "source": generated.name,
            "fingerprint": generated.fingerprint if known else generated.fingerprint(),  # type: ignore[operator]
        }
        return scores, facts
    number = settings["num_samples"] or evaluator.final_num_samples
    runs = []
    seeds = range(settings["seed"], settings["seed"] + settings["seeds"])
    for seed in seeds:
        what = "evaluating" if len(seeds) == 1 else f"evaluating, seed {seed}"
        batches = generated.batches(number, seed=seed, batch_size=settings["batch_size"], what=what)
        runs.append(
            evaluator.evaluate(batches, conditional=len(generated.class_counts) > 0, model=generated.model)
        )
    scores = runs[0]
    if len(runs) > 1:
        scores = {name: mean(run[name] for run in runs) for name in runs[0]}
        scores |= {f"{name}_over_seeds": stdev(run[name] for run in runs) for name in runs[0]}
    facts = {
        "num_samples": number,
        "seed": settings["seed"],
        "labels": "the data's frequencies" if generated.class_counts else None,
        "truncation": generated.truncation,
        **generated.facts,
    }
    return scores, facts | ({"seeds": len(runs)} if len(runs) > 1 else {})


def _save_statistics(path: Path, evaluator: Evaluator) -> None:
    if not isinstance(evaluator, FeatureEvaluator):
        raise UserError(f"save_stats={path}: metrics={evaluator.name} has no features to describe")
    stamp = evaluator.stamp()
    make_folder(path.parent, "save_stats")
    with user_errors():
        write_statistics(
            path, evaluator.real.statistics, {key: stamp[key] for key in ("extractor", "real", "versions")}
        )
    log.info("mean and covariance of %s: %s", stamp["real"]["name"], path)


def _draw_neighbours(
    settings: Mapping[str, Any], generated: Source, evaluator: Evaluator, path: Path
) -> None:
    """A picture: in each row a generated image and the real ones nearest to it, by the extractor's features."""
    if not isinstance(evaluator, FeatureEvaluator) or isinstance(generated, KnownStatistics):
        raise UserError(f"neighbours={settings['neighbours']} needs images and their features")
    if isinstance(generated, Generator):
        number = settings["num_samples"] or evaluator.final_num_samples
        generated = generated.as_data(number, seed=settings["seed"], batch_size=settings["batch_size"])
    rows: Tensor = nearest_training_images(
        evaluator.read(generated), evaluator.real, settings["neighbours"], NEAREST
    )
    save_png(path, grid(rows, columns=1 + NEAREST))
    log.info("in each row a generated image, then the real images nearest to it: %s", path)


def _out(settings: Mapping[str, Any], sides: _Comparison, evaluator: Evaluator) -> Path:
    if settings["out"]:
        return Path(settings["out"]).expanduser()
    if sides.trained is not None:
        return sides.trained.path.with_name(f"{sides.trained.path.stem}_{evaluator.name}.json")
    assert sides.generated is not None
    return Path(f"{Path(sides.generated.name).stem}_{evaluator.name}.json")


def _title(sides: _Comparison) -> str:
    if sides.trained is not None:
        return f"{sides.trained.path.name} of {sides.trained.run} at {sides.trained.kimg:g} kimg"
    assert sides.generated is not None
    return sides.generated.name


ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}


def _show(title: str, scores: dict[str, float], evaluator: Evaluator, stamp: Stamp) -> None:
    """The scores as a table, and under it what made them."""
    spreads = {name: value for name, value in scores.items() if name.endswith("_over_seeds")}
    table = Table()
    table.add_column("figure")
    table.add_column("value", justify="right")
    if spreads:
        table.add_column("± over seeds", justify="right")
    table.add_column("better")
    for name, value in scores.items():
        if name not in spreads:
            spread = [f"{spreads[f'{name}_over_seeds']:.2g}"] if spreads else []
            table.add_row(name, f"{value:.5g}", *spread, ARROWS[evaluator.figures.get(name, "neither")])
    console = Console(soft_wrap=True, highlight=False)
    console.print(title)
    console.print(table)
    note = "comparable with papers" if evaluator.comparable_with_papers else "not comparable with papers"
    console.print(f"made by the {evaluator.name} extractor: {note}")
    console.print(f"protocol {stamp['protocol']}; scores of another protocol do not compare with these")
    for section in ("extractor", "real", "generated", "metrics", "versions"):
        console.print(f"  {section}: {_words(stamp[section])}", markup=False)


def _words(section: Mapping[str, Any]) -> str:
    """A section of the stamp in a line; hashes shortened."""
    parts = []
    for name, value in section.items():
        if isinstance(value, Mapping):
            parts.append(f"{name} ({_words(value)})" if value else name)
        elif isinstance(value, str) and len(value) == 64:
            parts.append(f"{name} {value[:12]}")
        elif value is not None:
            parts.append(f"{name} {value}")
    return ", ".join(parts)
