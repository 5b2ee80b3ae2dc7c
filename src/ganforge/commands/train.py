"""`ganforge train`: composes an experiment, checks all of it, and plays it to its end."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from ganforge.commands import building
from ganforge.commands.checkpoints import why_unreadable
from ganforge.commands.configuration import plain
from ganforge.commands.errors import RunFailedError, UserError, user_errors
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.resolvers import forbids_batch_norm
from ganforge.commands.run_folder import command_line, quoted, read_config, record_start, write_config
from ganforge.draws import derive_seed
from ganforge.games.game import Game
from ganforge.training.checkpoint_file import AtomicCheckpointIO
from ganforge.training.ema import EMA
from ganforge.training.fit import fit
from ganforge.training.loggers.logger import Loggers, RunInfo
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule, Player
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run

log = logging.getLogger("ganforge")

# Arguments of lightning.Trainer that mean the same here; the others count optimizer steps, or are set by `fit`.
TRAINER_KEYS = (
    "accelerator",
    "devices",
    "precision",
    "deterministic",
    "benchmark",
    "detect_anomaly",
    "profiler",
)
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")

# What a resumed run has to share with its checkpoint; lengths, periods, loggers and learning rates may change.
FIXED_ON_RESUME = ("game", "data", "seed", "batch_size", "discriminator_steps", "accumulate", "conditional")


def train(config: DictConfig) -> dict[str, float]:
    """One run, or one job of a multirun. Returns the final scores.

    Raises:
        UserError: anything the user can put right, before training starts.
        RunFailedError: training ended badly; the run's folder says why.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is None and (folder / "config.yaml").exists():
        raise UserError(
            f"{folder} already holds a run: resume={folder} goes on with it, hydra.run.dir=... makes another"
        )
    _check_settings(plain(config))
    data = building.build(_data_arguments(config), "data")
    config.data.image_size, config.data.channels = data.image_size, data.channels
    config.data.num_classes = data.num_classes
    settings = plain(config)
    if config.resume is not None:
        settings = _resumed(settings, folder)
    checkpoint = _checkpoint(folder) if config.resume is not None else None
    conditional = _conditional(settings, data)
    building.check(settings["model"], "model")

    torch.manual_seed(derive_seed(settings["seed"], "weights"))
    game = building.build(settings["game"], "game")
    _check_discriminator(settings, game)
    module = _module(settings, game, data)
    evaluator = building.build(settings["metrics"], "metrics")
    loggers = Loggers(building.build(_loggers(settings["logger"]), "logger"))
    callbacks = building.build(settings["callbacks"], "callbacks")
    state = _load(checkpoint, module, settings) if checkpoint else None
    images_seen = state["clock"]["images_seen"] if state else 0
    run = Run(
        folder=folder,
        loggers=loggers,
        evaluator=evaluator,
        total_images=round(settings["total_kimg"] * 1000),
        class_counts=torch.bincount(data.labels, minlength=data.num_classes).tolist() if conditional else (),
        class_names=data.class_names if conditional else (),
        seed=settings["seed"],
        config=settings,
        real_points=data.batch(torch.arange(min(len(data), 2000))) if len(data.shape) == 1 else None,
    )
    if run.reached_total(images_seen):
        log.info("%s has its %g kimg; total_kimg=... larger goes on", folder, settings["total_kimg"])
        return state["ganforge"]["scores"] if state else {}
    with user_errors():
        evaluator.prepare(data, _device(settings["trainer"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
        write_config(folder, settings, _overrides(config))
        record_start(folder, command_line(), settings["seed"])
    rounds = Rounds(
        data,
        conditional=conditional,
        images_per_round=module.images_per_round,
        seed=settings["seed"],
        start=lambda: module.images_seen,
        workers=settings["workers"],
    )
    _announce(settings, game, data, folder, images_seen)
    info = RunInfo(folder, settings["name"], settings["tags"], settings, images_seen)
    return _play(module, rounds, run, [c for c in callbacks.values() if c], checkpoint, info)


def _play(
    module: AdversarialModule,
    rounds: Rounds,
    run: Run,
    callbacks: list[Any],
    checkpoint: Path | None,
    info: RunInfo,
) -> dict[str, float]:
    """Trains; whatever happens, loggers are closed and the folder says how the run ended."""
    exit_code = 1
    failure = run.folder / "failure.txt"
    failure.unlink(missing_ok=True)
    go_on = f"go on with: ganforge train resume={shlex.quote(str(run.folder))}"
    start = time.perf_counter()
    run.loggers.start(info)
    try:
        fit(module, rounds, run, callbacks, checkpoint, **run.config["trainer"])
        exit_code = 0 if run.stop_signal is None else 128 + run.stop_signal
    except NonFiniteLossError as error:
        kept = sorted(path.name for path in (run.folder / "checkpoints").glob("*.ckpt"))
        before = (
            f"{' and '.join(kept)} in {run.folder / 'checkpoints'}: from before"
            if kept
            else "no checkpoint yet"
        )
        message = f"{error} before {module.kimg:g} kimg ({before}); try a lower learning rate, clip_norm or a penalty"
        _note_failure(failure, message)
        raise RunFailedError(message) from error
    except OSError as error:
        message = f"{error}; {go_on}"
        _note_failure(failure, message)
        raise RunFailedError(message) from error
    except BaseException as error:
        _note_failure(failure, f"{type(error).__name__}: {error}; {go_on}")
        raise
    finally:
        run.loggers.finish(exit_code)
    if run.stop_signal is not None:
        message = f"stopped by {run.stop_signal.name} at {module.kimg:g} kimg; {go_on}"
        _note_failure(failure, message)
        raise RunFailedError(message, exit_code)
    _conclude(run, module, time.perf_counter() - start)
    return run.scores


def _note_failure(path: Path, message: str) -> None:
    try:
        path.write_text(message + "\n")
    except OSError:  # the disk may be what failed
        log.error("%s", message)


def _conclude(run: Run, module: AdversarialModule, seconds: float) -> None:
    log.info("done: %g kimg in %.0f s", module.kimg, seconds)
    if run.scores:
        made_by = run.evaluator.name
        comparable = (
            "comparable with papers" if run.evaluator.comparable_with_papers else "not comparable with papers"
        )
        log.info("scores by the %s extractor (%s):", made_by, comparable)
        for name, value in run.scores.items():
            log.info("  %-22s %.4g", name, value)
    log.info("pictures, checkpoints and figures: %s", run.folder)


def _announce(settings: Mapping[str, Any], game: Game, data: Any, folder: Path, images_seen: int) -> None:
    count = {
        side: sum(p.numel() for p in module.parameters())
        for side, module in (("generator", game.generator_side), ("discriminator", game.discriminator_side))
    }
    shape = "x".join(map(str, data.shape))
    classes = f", {settings['num_classes']} classes" if settings["num_classes"] else ""
    log.info(
        "%s: %d samples of %s (%s)%s; generator %s, discriminator %s parameters",
        settings["name"],
        len(data),
        data.name,
        shape,
        classes,
        f"{count['generator']:,}",
        f"{count['discriminator']:,}",
    )
    log.info("%s %s", "going on in" if images_seen else "writing to", folder)


def _data_arguments(config: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    arguments = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(arguments, dict)
    return arguments  # type: ignore[return-value]


def _loggers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The loggers of a section that may also hold settings they share, such as `logger.mode`."""
    return {name: node for name, node in settings.items() if isinstance(node, dict)}


def _conditional(settings: Mapping[str, Any], data: Any) -> bool:
    if settings["conditional"] and data.num_classes == 0:
        raise UserError(
            f"conditional=true needs labels, and {data.name} has none: leave conditional=true out, or use data with "
            "classes (for image_folder: a sub-folder each, or a dataset.json)"
        )
    return bool(settings["num_classes"])


def _check_settings(settings: Mapping[str, Any]) -> None:
    """What can be known to be wrong before the data are read, which may take long."""
    for key in ("loss", "penalty", "optimizer", "schedule", "metrics", "callbacks", "logger"):
        building.check(settings[key], key)
    _check_trainer(settings["trainer"])
    for key in ("total_kimg", "batch_size"):
        if not 0 < settings[key] < math.inf:
            raise UserError(f"{key}={settings[key]:g} must be greater than 0 and finite")
    if settings["workers"] < 0:
        raise UserError(f"workers={settings['workers']} must be at least 0 (0: no other processes)")


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key in trainer:
        if key not in TRAINER_KEYS:
            raise UserError(
                f"trainer.{key}: there is no such setting, it can be {', '.join(TRAINER_KEYS)}"
                f"{did_you_mean(key, TRAINER_KEYS)}; how long a run is says total_kimg=..."
            )
    if trainer.get("devices") not in (1, "1", "auto"):
        raise UserError(f"trainer.devices={trainer.get('devices')}: training runs on one device; set it to 1")
    precision = trainer.get("precision", "32-true")
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision}: it can be {', '.join(PRECISIONS)} (16-mixed would need a gradient scaler "
            "for each player)"
        )
    building.check({"_target_": "lightning.Trainer", **trainer}, "trainer")
    there = {
        "auto": True,
        "cpu": True,
        "gpu": torch.cuda.is_available() or torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    accelerator = trainer.get("accelerator", "auto")
    if not there.get(accelerator):
        what = "is not on this machine" if accelerator in there else f"is not one of {', '.join(there)}"
        raise UserError(
            f"trainer.accelerator={accelerator} {what}; trainer.accelerator=auto takes the best there is"
        )


def _check_discriminator(settings: Mapping[str, Any], game: Game) -> None:
    norms = [
        name
        for name, m in game.discriminator_side.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    if norms and forbids_batch_norm(settings):
        raise UserError(
            f"the discriminator has batch norm (at {norms[0]}), which a Wasserstein loss or a gradient penalty cannot "
            "be used with: model.discriminator.norm=none or layer"
        )
    loss, penalties = game.loss, dict(game.penalties.items())  # type: ignore[operator,union-attr]
    spectral = any("parametrizations" in name for name, _ in game.discriminator_side.named_parameters())
    bounded = spectral or any(getattr(p, "bounds_critic", False) for p in penalties.values())
    if getattr(loss, "needs_lipschitz", False) and not bounded:
        log.warning(
            "this loss needs a critic whose slope is bounded, and nothing here bounds it: add "
            "penalty=[gradient_penalty], penalty=[weight_clipping] or a model with spectral norm (model=sngan)"
        )


def _module(settings: Mapping[str, Any], game: Game, data: Any) -> AdversarialModule:
    schedule = building.build(settings["schedule"], "schedule")
    optimizers = building.build(settings["optimizer"], "optimizer")
    for side, optimizer in optimizers.items():
        _try_optimizer(side, optimizer)
    players: dict[str, Any] = {
        side: Player(optimizers[side], schedule, settings["clip_norm"][side])
        for side in ("discriminator", "generator")
    }
    with user_errors():
        return AdversarialModule(
            game,
            **players,
            ema=EMA(game.generator_side, **settings["ema"]),
            seed=settings["seed"],
            batch_size=settings["batch_size"],
            discriminator_steps=settings["discriminator_steps"],
            accumulate=settings["accumulate"],
            flip=data.flip,
        )


def _try_optimizer(side: str, optimizer: Any) -> None:
    """Optimizers are made once training starts; what they find wrong with their numbers is said now."""
    try:
        optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"optimizer.{side}: {error}") from error


def _device(trainer: Mapping[str, Any]) -> torch.device:
    wants_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    return torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")


def _overrides(config: DictConfig) -> list[str]:
    """What was asked on the command line, without the wish to resume; the user's own folders of YAML files first."""
    asked = [word for word in HydraConfig.get().overrides.task if not word.startswith("resume=")]
    sources = HydraConfig.get().runtime.config_sources
    folders = [s.path for s in sources if s.schema == "file" and "command-line" in s.provider]
    own = ",".join(quoted(f"file://{Path(folder).absolute()}") for folder in dict.fromkeys(folders))
    return [f"hydra.searchpath=[{own}]", *asked] if own else asked


def _checkpoint(folder: Path) -> Path | None:
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.exists() else None


def _resumed(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The run's own settings, with what was asked on top of them now.

    Hydra has composed the run's old overrides and the new ones; composing the old ones alone shows what the new ones
    changed, and only that is taken over: defaults that changed since the run started do not touch it.
    """
    stored, old_overrides = read_config(folder)
    before = plain(_with_facts(compose(config_name="train", overrides=old_overrides), stored))
    settings: dict[str, Any] = _apply_difference(stored, before, {**asked, "resume": None})
    return settings


def _with_facts(config: DictConfig, stored: Mapping[str, Any]) -> DictConfig:
    for fact in ("image_size", "channels", "num_classes"):
        config.data[fact] = stored["data"][fact]
    return config


def _apply_difference(base: Any, before: Any, after: Any) -> Any:
    """`base` with every value that differs between `before` and `after` replaced by the one of `after`."""
    if before == after:
        return base
    if not (isinstance(base, dict) and isinstance(before, dict) and isinstance(after, dict)):
        return after
    keys = [k for k in base if k in after or k not in before]
    keys += [k for k in after if k not in base and k not in before]
    missing = object()
    return {
        k: _apply_difference(base.get(k, after.get(k)), before.get(k, missing), after.get(k, missing))
        if k in after
        else base[k]
        for k in keys
    }


def _load(path: Path, module: AdversarialModule, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint, once it is sure that it is whole and of this model."""
    try:
        state: dict[str, Any] = AtomicCheckpointIO().load_checkpoint(path)
        stored = state["ganforge"]["config"]
    except Exception as error:
        best = path.with_name("best.ckpt")
        way_out = f"copy {best} over it to go on from there" if best.exists() else "start a new run"
        raise UserError(f"{path} is not a whole checkpoint ({why_unreadable(error)}); {way_out}") from error
    for key in FIXED_ON_RESUME:
        difference = first_difference(stored[key], settings[key], key)
        if difference and not difference.startswith("data.root "):
            raise UserError(
                f"{path} was trained otherwise: {difference}; resume it as it was, or start a new run"
            )
    own = module.state_dict()
    for name, tensor in state["state_dict"].items():
        if name not in own or own[name].shape != tensor.shape:
            here = tuple(own[name].shape) if name in own else "missing"
            raise UserError(
                f"{path} is of another model: {name} is {tuple(tensor.shape)} there and {here} here"
            )
    return state


def first_difference(stored: Any, asked: Any, key: str) -> str | None:
    """`key is STORED there and ASKED here` for the first place where two configurations differ."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for name in [*stored, *(n for n in asked if n not in stored)]:
            difference = first_difference(stored.get(name), asked.get(name), f"{key}.{name}")
            if difference:
                return difference
        return None
    return None if stored == asked else f"{key} is {stored!r} there and {asked!r} here"
