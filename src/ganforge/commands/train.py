"""`ganforge train`: composes an experiment, checks all of it, and plays it to its end."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from ganforge.commands import building
from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.resolvers import forbids_batch_norm
from ganforge.commands.run_folder import command_line, read_config, record_start, write_config
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

# Settings that say how or how long to run, not what is trained: free to change when a run is resumed.
FREE_ON_RESUME = ("total_kimg", "tags", "name", "resume", "workers", "callbacks", "logger", "metrics", "trainer", "data.root")


def train(config: DictConfig) -> dict[str, float]:
    """One run, or one job of a multirun. Returns the final scores.

    Raises:
        UserError: anything the user can put right, before training starts.
        RunFailedError: training ended badly; the run's folder says why.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is None and (folder / "config.yaml").exists():
        raise UserError(f"{folder} already holds a run: resume={folder} goes on with it, hydra.run.dir=... makes another")
    data = building.build(_data_arguments(config), "data")
    config.data.image_size, config.data.channels = data.image_size, data.channels
    config.data.num_classes = data.num_classes
    settings = plain(config)
    if config.resume is not None:
        settings = _resumed(settings, folder)
    checkpoint = _checkpoint(folder) if config.resume is not None else None
    conditional = _conditional(settings, data)
    _check_parts(settings)

    torch.manual_seed(derive_seed(settings["seed"], "weights"))
    game = building.build(settings["game"], "game")
    _check_discriminator(settings, game)
    module = _module(settings, game, data)
    evaluator = building.build(settings["metrics"], "metrics")
    loggers = Loggers(building.build(settings["logger"], "logger"))
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
    return _play(module, rounds, run, list(callbacks.values()), checkpoint, info)


class RunFailedError(Exception):
    """Training ended badly, or was asked to stop; carries the exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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
        message = f"{error} before {module.kimg:g} kimg; the checkpoints in {run.folder / 'checkpoints'} are from before"
        failure.write_text(message + "\n")
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
        comparable = "comparable with papers" if run.evaluator.comparable_with_papers else "not comparable with papers"
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


def _conditional(settings: Mapping[str, Any], data: Any) -> bool:
    if settings["conditional"] and data.num_classes == 0:
        raise UserError(
            f"conditional=true needs labels, and {data.name} has none: leave conditional=true out, or use data with "
            "classes (for image_folder: a sub-folder each, or a dataset.json)"
        )
    return bool(settings["num_classes"])


def _check_parts(settings: Mapping[str, Any]) -> None:
    """Everything that is only built later is checked now."""
    for key in ("game", "optimizer", "schedule", "metrics", "callbacks", "logger"):
        building.check(settings[key], key)
    if settings["trainer"].get("devices") not in (1, "1", "auto"):
        raise UserError(f"trainer.devices={settings['trainer']['devices']!r}: training runs on one device; set it to 1")
    if str(settings["trainer"].get("precision", "32-true")).startswith("16"):
        raise UserError("trainer.precision=16-mixed needs a gradient scaler for each player; use bf16-mixed or 32-true")
    if settings["total_kimg"] <= 0 or settings["batch_size"] <= 0:
        raise UserError(
            f"total_kimg={settings['total_kimg']} and batch_size={settings['batch_size']} must be greater than 0"
        )


def _check_discriminator(settings: Mapping[str, Any], game: Game) -> None:
    norms = [name for name, m in game.discriminator_side.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms and forbids_batch_norm(settings):
        raise UserError(
            f"the discriminator has batch norm (at {norms[0]}), which a Wasserstein loss or a gradient penalty cannot be "
            "used with: model.discriminator.norm=layer or none"
        )
    loss, penalties = game.loss, dict(game.penalties.items())  # type: ignore[operator,union-attr]
    spectral = any("parametrizations" in name for name, _ in game.discriminator_side.named_parameters())
    bounded = spectral or any(getattr(p, "bounds_critic", False) for p in penalties.values())
    if getattr(loss, "needs_lipschitz", False) and not bounded:
        log.warning(
            "this loss needs a critic whose slope is bounded, and nothing here bounds it: add penalty=[gradient_penalty], "
            "penalty=[weight_clipping] or a model with spectral norm (model=sngan)"
        )


def _module(settings: Mapping[str, Any], game: Game, data: Any) -> AdversarialModule:
    schedule = building.build(settings["schedule"], "schedule")
    optimizers = building.build(settings["optimizer"], "optimizer")
    players = {
        side: Player(optimizers[side], schedule, settings["clip_norm"][side]) for side in ("discriminator", "generator")
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


def _device(trainer: Mapping[str, Any]) -> torch.device:
    wants_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    return torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")


def _overrides(config: DictConfig) -> list[str]:
    """What was asked on the command line, without the wish to resume."""
    return [word for word in HydraConfig.get().overrides.task if not word.startswith("resume=")]


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
    return _apply_difference(stored, before, {**asked, "resume": None})


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
        state = AtomicCheckpointIO().load_checkpoint(path)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a whole checkpoint ({reason}); another one of the run may be: {path.parent}") from error
    stored = state["ganforge"]["config"]
    for key in ("game", "seed", "batch_size", "discriminator_steps", "accumulate", "conditional"):
        difference = first_difference(stored[key], settings[key], key)
        if difference:
            raise UserError(f"{path} was trained otherwise: {difference}; resume it as it was, or start a new run")
    own = module.state_dict()
    for name, tensor in state["state_dict"].items():
        if name not in own or own[name].shape != tensor.shape:
            here = tuple(own[name].shape) if name in own else "missing"
            raise UserError(f"{path} is of another model: {name} is {tuple(tensor.shape)} there and {here} here")
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


def resume_overrides(words: Sequence[str]) -> list[str]:
    """The command line of `train resume=FOLDER ...`, with the run's own overrides in front and its folder fixed."""
    folders = [word.split("=", 1)[1] for word in words if word.startswith("resume=")]
    if not folders or not folders[-1] or folders[-1] == "null":
        return list(words)
    folder = Path(folders[-1]).expanduser()
    _, old_overrides = read_config(folder)
    return [*old_overrides, *words, f"hydra.run.dir={_quoted(folder)}"]


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


