"""`ganforge train`: composes an experiment, checks all of it, and plays it to its end."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ganforge.commands import building, fast
from ganforge.commands.checks import (
    STOP_SETTINGS,
    check_conditional,
    check_discriminator,
    check_optimizer,
    check_settings,
)
from ganforge.commands.configuration import plain
from ganforge.commands.errors import RunFailedError, UserError, user_errors
from ganforge.commands.resuming import last_checkpoint, load_resumed, resumed_settings
from ganforge.commands.run_folder import command_line, quoted, record_start, write_config
from ganforge.draws import derive_seed
from ganforge.games.game import Game
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.ema import EMA
from ganforge.training.fit import fit
from ganforge.training.loggers.logger import Loggers, RunInfo
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule, Player
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run
from ganforge.training.stopping import Stopping

log = logging.getLogger("ganforge")


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
    check_settings(plain(config))
    data = building.build(OmegaConf.to_container(config.data, resolve=True), "data")
    with user_errors():
        config.data.image_size, config.data.channels = data.image_size, data.channels
    config.data.num_classes = data.num_classes
    settings = plain(config)
    if config.resume is not None:
        settings = resumed_settings(settings, folder)
    checkpoint = last_checkpoint(folder) if config.resume is not None else None
    conditional = check_conditional(settings, data)
    building.check(settings["model"], "model")

    torch.manual_seed(derive_seed(settings["seed"], "weights"))
    game = building.build(settings["game"], "game")
    check_discriminator(settings, game)
    device = _device(settings["trainer"])
    chosen = fast.choose(settings, game, data, device)
    fast.apply(chosen, game)
    module = _module(settings, game, data, chosen)
    run = _run(settings, folder, data, conditional)
    callbacks = [c for c in building.build(settings["callbacks"], "callbacks").values() if c]
    state = load_resumed(checkpoint, module, settings) if checkpoint else None
    images_seen = state["clock"]["images_seen"] if state else 0
    if state and _has_ended(state, run, settings):
        log.info("%s has ended; total_kimg=... larger, or another stop.KEY, goes on", folder)
        return dict(state["ganforge"]["final_scores"])
    with user_errors():
        for callback in callbacks:
            if isinstance(callback, Periodic):
                callback.check(run)
        if state:
            same_scores = state["ganforge"]["config"]["metrics"] == settings["metrics"]
            run.restore(state["ganforge"], same_scores=same_scores)
            if same_scores:
                run.evaluator.load_state(state["evaluator"])
        run.evaluator.prepare(data, device)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_config(folder, settings, _overrides(config))
        record_start(folder, command_line(), settings["seed"])
    rounds = Rounds(
        data,
        conditional=conditional,
        images_per_round=module.images_per_round,
        seed=settings["seed"],
        start=lambda: module.images_seen,
        workers=settings["workers"],
        resident=device if chosen.resident else None,
    )
    _announce(settings, game, data, folder, images_seen)
    info = RunInfo(folder, settings["name"], settings["tags"], settings, images_seen)
    trainer_arguments = fast.trainer_arguments(chosen, settings["trainer"])
    return _play(module, rounds, run, callbacks, checkpoint, info, trainer_arguments)


def _run(settings: dict[str, Any], folder: Path, data: Any, conditional: bool) -> Run:
    evaluator = building.build(settings["metrics"], "metrics")
    targets = {name: value for name, value in settings["stop"].items() if name not in STOP_SETTINGS}
    asked = any(value is not None for value in settings["stop"].values())
    with user_errors():
        stopping = Stopping(
            targets=targets,
            metric=settings["stop"].get("metric"),
            patience_kimg=settings["stop"].get("patience_kimg"),
            figures=evaluator.figures,
            monitor=evaluator.monitor,
        )
    return Run(
        folder=folder,
        loggers=Loggers(building.build(_loggers(settings["logger"]), "logger")),
        evaluator=evaluator,
        total_images=round(settings["total_kimg"] * 1000),
        class_counts=torch.bincount(data.labels, minlength=data.num_classes).tolist() if conditional else (),
        class_names=data.class_names if conditional else (),
        seed=settings["seed"],
        config=settings,
        real_points=data.batch(torch.arange(min(len(data), 2000))) if len(data.shape) == 1 else None,
        stopping=stopping if asked else None,
    )


def _has_ended(state: Mapping[str, Any], run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is of a run that reached its total, or stopped for a reason that still holds."""
    stored = state["ganforge"]
    same_stop = stored["config"].get("stop") == settings["stop"]
    return run.reached_total(state["clock"]["images_seen"]) or bool(stored["ended_because"] and same_stop)


def _play(
    module: AdversarialModule,
    rounds: Rounds,
    run: Run,
    callbacks: list[Any],
    checkpoint: Path | None,
    info: RunInfo,
    trainer_arguments: dict[str, Any],
) -> dict[str, float]:
    """Trains; whatever happens, loggers are closed and the folder says how the run ended."""
    exit_code = 1
    failure = run.folder / "failure.txt"
    failure.unlink(missing_ok=True)
    go_on = f"go on with: ganforge train resume={shlex.quote(str(run.folder))}"
    start = time.perf_counter()
    run.loggers.start(info)
    try:
        fit(module, rounds, run, callbacks, checkpoint, **trainer_arguments)
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
    return run.final_scores


def _note_failure(path: Path, message: str) -> None:
    try:
        path.write_text(message + "\n")
    except OSError:  # the disk may be what failed
        log.error("%s", message)


def _conclude(run: Run, module: AdversarialModule, seconds: float) -> None:
    log.info("done: %g kimg in %.0f s", module.kimg, seconds)
    if run.final_scores:
        made_by = run.evaluator.name
        comparable = (
            "comparable with papers" if run.evaluator.comparable_with_papers else "not comparable with papers"
        )
        log.info("scores by the %s extractor (%s):", made_by, comparable)
        for name, value in run.final_scores.items():
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


def _loggers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The loggers of a section that may also hold settings they share, such as `logger.mode`."""
    return {name: node for name, node in settings.items() if isinstance(node, dict)}


def _module(settings: Mapping[str, Any], game: Game, data: Any, chosen: fast.Fast) -> AdversarialModule:
    schedule = building.build(settings["schedule"], "schedule")
    optimizers = building.build(settings["optimizer"], "optimizer")
    if settings["fast"]["lazy_correction"]:
        optimizers["discriminator"] = fast.corrected_for_lazy_penalties(
            optimizers["discriminator"], getattr(game, "penalties", {})
        )
    for side, optimizer in optimizers.items():
        check_optimizer(side, optimizer)
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
            channels_last=chosen.channels_last,
        )


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
