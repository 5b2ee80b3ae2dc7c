"""`ganforge evaluate`: the scores of a generator or of any images, and the protocol that made them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import Tensor

from ganforge.commands import building
from ganforge.commands.checkpoints import Trained, choose_device, load_trained
from ganforge.commands.configuration import explain, plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.processes import sharing
from ganforge.commands.run_folder import make_folder
from ganforge.commands.scores import free_file, show
from ganforge.commands.sources import Generator, Source, checkpoint_generator, manner_of, open_source
from ganforge.evaluation.evaluator import Evaluator, KnownStatistics, RealData
from ganforge.evaluation.fallback import FirstThatWorks
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.memorisation import nearest_training_images
from ganforge.evaluation.stamp import protocol
from ganforge.evaluation.statistics_file import write_statistics
from ganforge.images import grid, save_png

log = logging.getLogger("ganforge")

NEAREST = 5


def evaluate(config: DictConfig) -> dict[str, float]:
    """Scores a checkpoint, or anything `generated` names, against the run's own data, or anything `real` names.

    Raises:
        UserError: a source, metric or setting that cannot be used.
    """
    config.model = None  # a network that a data set names; it refers to settings of training
    settings = plain(config)
    _check(settings)
    with sharing(settings["processes"]) as team:
        if torch.cuda.is_available():
            team.take_gpu()  # device=cuda is then another one for each process, as far as there are several
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
    manner_of(settings)
    building.check(settings["sampling"], "sampling")
    if settings["checkpoint"] is not None and settings["generated"] is not None:
        raise UserError("checkpoint=... and generated=... name the same side: give one of them")
    for side in ("generated", "real", "held_out"):
        if settings[side] == "":
            raise UserError(f"{side}= names nothing; ganforge evaluate --help has examples")
    if settings["save_stats"] is not None and not settings["save_stats"].endswith(".npz"):
        raise UserError(f"save_stats={settings['save_stats']}: the name of such a file ends in .npz")
    if settings["processes"] > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(f"processes={settings['processes']} cannot share a multirun: leave out -m")
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
    if out.is_dir():
        raise UserError(f"out={out} is a folder: it names the JSON file")
    if first:
        make_folder(out.parent, "out")
    with user_errors():
        scores, generated = _scores(settings, sides, evaluator)
    if wrong := [name for name, value in scores.items() if not math.isfinite(value)]:
        raise UserError(f"{', '.join(wrong)}: not a finite number; are the samples finite?")
    stamp = {**evaluator.stamp(), "generated": generated}
    stamp = {"protocol": protocol(stamp), **stamp}
    if first:
        show(_title(sides), scores, evaluator, stamp)
        if settings["out"] is None:
            out = free_file(out, stamp)
        with user_errors():
            out.write_text(json.dumps({"scores": scores, "made_by": stamp}, indent=2) + "\n")
        log.info("written to %s", out)
    if settings["neighbours"]:
        with user_errors():
            _draw_neighbours(
                settings, sides.generated, evaluator, out.with_name(f"{out.stem}_neighbours.png"), first=first
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
    if not isinstance(generated, Generator | None) and settings["seeds"] > 1:
        raise UserError(
            f"seeds={settings['seeds']} is for generators; {generated.name} holds the samples that it holds: "
            "bootstrap=200 resamples them"
        )
    if not any(isinstance(side, Generator) for side in (generated, real)):
        for key in ("num_samples", "truncation", "truncation_psi", "sampling"):
            if settings[key] is not None:
                value = settings[key] if key != "sampling" else "..."
                raise UserError(f"{key}={value} is for generators, and neither side is one")
    if settings["neighbours"] and isinstance(generated, KnownStatistics):
        raise UserError(f"neighbours={settings['neighbours']}: {generated.name} holds no images")
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
    if settings["neighbours"] and _engine(evaluator) is None:
        raise UserError(f"neighbours={settings['neighbours']}: metrics={evaluator.name} has no features")
    with user_errors():
        real = sides.real
        if isinstance(real, Generator):
            number = settings["num_samples"] or evaluator.final_num_samples
            real = real.as_data(number, seed=settings["seed"], batch_size=settings["batch_size"])
        state = trained.evaluator_state if trained is not None and own else {}
        evaluator.load_state(state)
        wants_images = settings["neighbours"] > 0 or _wants_images(evaluator)
        if real is None and trained is not None and (not state or wants_images):
            building.refuse_untrusted(trained.config["data"], "data", settings["trust"])
            real = building.build(trained.config["data"], "data")
        evaluator.prepare(real, device, sides.held_out)
    return evaluator


def _engine(evaluator: Evaluator) -> FeatureEvaluator | None:
    """The evaluator itself, or the one that metrics=auto stays with, where it compares features."""
    if isinstance(evaluator, FirstThatWorks):
        evaluator = evaluator.chosen
    return evaluator if isinstance(evaluator, FeatureEvaluator) else None


def _wants_images(evaluator: Evaluator) -> bool:
    engine = _engine(evaluator)
    return engine is not None and engine.num_images > 0


def _with_compute(metrics: Any, names: Sequence[str]) -> Any:
    """The metrics' settings with other things to compute, wherever they name some."""
    if "compute" not in metrics:
        raise UserError("metrics.compute=... has no use here: these metrics compute one thing")
    chosen = f"metrics/compute=[{','.join(names)}]"
    try:  # the user's own folders of YAML files are looked at as well
        compute = plain(compose("evaluate", overrides=["metrics=digits", chosen]))["metrics"]["compute"]
    except MissingConfigException as error:
        raise UserError(explain(error, "evaluate")) from error
    return _replaced(metrics, "compute", compute)


def _with_bootstrap(metrics: Any, resamples: int) -> Any:
    """The metrics' settings with `bootstrap` in every one that has it."""
    if not any("bootstrap" in node for node in metrics.get("compute", {}).values()):
        raise UserError(f"bootstrap={resamples} has no use here: these metrics have no such interval")
    return _replaced(metrics, "bootstrap", resamples)


def _replaced(node: Any, key: str, new: Any) -> Any:
    """Plain settings with another value wherever the key stands: metrics=auto has the same in several places."""
    if isinstance(node, dict):
        return {name: new if name == key else _replaced(value, key, new) for name, value in node.items()}
    return [_replaced(value, key, new) for value in node] if isinstance(node, list) else node


def _scores(
    settings: Mapping[str, Any], sides: _Comparison, evaluator: Evaluator
) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores, with standard deviations over seeds where several are asked for; and the stamp's section."""
    generated = sides.generated
    assert generated is not None
    if not isinstance(generated, Generator):
        scores = evaluator.evaluate_data(generated)
        known = isinstance(generated, KnownStatistics)
        facts = {
            "num_samples": None if known else len(generated),  # type: ignore[arg-type]
            "source": " ".join(filter(None, [generated.name, getattr(generated, "split", None)])),
            "fingerprint": generated.fingerprint if known else generated.fingerprint(),  # type: ignore[operator]
        }
        return scores, facts
    number = settings["num_samples"] or evaluator.final_num_samples
    runs = []
    conditional = len(generated.class_counts) > 0 and _same_classes(generated, sides.real)
    seeds = range(settings["seed"], settings["seed"] + settings["seeds"])
    for seed in seeds:
        what = "evaluating" if len(seeds) == 1 else f"evaluating, seed {seed}"
        batches = generated.batches(number, seed=seed, batch_size=settings["batch_size"], what=what)
        runs.append(evaluator.evaluate(batches, conditional=conditional, model=generated.model))
    scores = runs[0]
    if len(runs) > 1:
        names = [name for name in runs[0] if all(name in run for run in runs)]
        scores = {name: mean(run[name] for run in runs) for name in names}
        scores |= {f"{name}_over_seeds": stdev(run[name] for run in runs) for name in names}
    facts = {
        "num_samples": number,
        "seed": settings["seed"],
        "labels": "the data's frequencies" if generated.class_counts else None,
        "truncation": generated.truncation,
        **generated.facts,
    }
    return scores, facts | ({"seeds": len(runs)} if len(runs) > 1 else {})


def _same_classes(generated: Generator, real: Source | None) -> bool:
    """Whether label k means the same on both sides, as far as names tell."""
    if real is None or isinstance(real, KnownStatistics):
        return True  # the checkpoint's own data; or no labels to compare with
    if generated.class_names and real.class_names:
        return list(generated.class_names) == list(real.class_names)
    other = len(real.class_counts) if isinstance(real, Generator) else real.num_classes
    return len(generated.class_counts) == other


def _save_statistics(path: Path, evaluator: Evaluator) -> None:
    engine = _engine(evaluator)
    if engine is None:
        raise UserError(f"save_stats={path}: metrics={evaluator.name} has no features to describe")
    stamp = engine.stamp()
    make_folder(path.parent, "save_stats")
    with user_errors():
        write_statistics(
            path, engine.real.statistics, {key: stamp[key] for key in ("extractor", "real", "versions")}
        )
    log.info("mean and covariance of %s: %s", stamp["real"]["name"], path)


def _draw_neighbours(
    settings: Mapping[str, Any], generated: Source, evaluator: Evaluator, path: Path, *, first: bool
) -> None:
    """A picture: in each row a generated image and the real ones nearest to it, by the extractor's features."""
    engine = _engine(evaluator)
    assert engine is not None
    assert not isinstance(generated, KnownStatistics)
    if isinstance(generated, Generator):
        number = settings["num_samples"] or evaluator.final_num_samples
        generated = generated.as_data(number, seed=settings["seed"], batch_size=settings["batch_size"])
    sample = engine.read(generated)  # by all processes together
    if not first:
        return
    rows: Tensor = nearest_training_images(sample, engine.real, settings["neighbours"], NEAREST)
    save_png(path, grid(rows, columns=1 + NEAREST))
    log.info("in each row a generated image, then the real images nearest to it: %s", path)


def _out(settings: Mapping[str, Any], sides: _Comparison, evaluator: Evaluator) -> Path:
    if settings["out"]:
        return Path(settings["out"]).expanduser()
    if sides.trained is not None:
        return sides.trained.path.with_name(f"{sides.trained.path.stem}_{evaluator.name}.json")
    assert sides.generated is not None
    name = sides.generated.name
    if isinstance(sides.generated, Generator | KnownStatistics):  # a file's, with its suffix
        name = Path(name).stem
    return Path(f"{name}_{evaluator.name}.json")


def _title(sides: _Comparison) -> str:
    if sides.trained is not None:
        return f"{sides.trained.path.name} of {sides.trained.run} at {sides.trained.kimg:g} kimg"
    assert sides.generated is not None
    return sides.generated.name
