"""`ganforge train`: composes an experiment, checks all of it, and plays it to its end."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ganforge.commands import building, fast, slurm
from ganforge.commands.checks import (
    OWN_TRAINER_KEYS,
    STOP_SETTINGS,
    TIMEOUT_SECONDS,
    check_conditional,
    check_discriminator,
    check_optimizer,
    check_packing,
    check_ranks,
    check_settings,
    check_shares,
    check_styles,
    device_of,
    devices_of,
)
from ganforge.commands.configuration import plain
from ganforge.commands.errors import RunFailedError, UserError, user_errors
from ganforge.commands.held_out import held_out_data
from ganforge.commands.job_of_a_sweep import goes_on, is_job_of_a_sweep, is_started_again
from ganforge.commands.processes import NothingToDoError, Team, end_a_starter_that_hangs, leading, sharing
from ganforge.commands.resuming import last_checkpoint, load_resumed, resumed_settings
from ganforge.commands.run_folder import command_line, quoted, record_end, record_start, write_config
from ganforge.commands.started import comes_after_the_first, started_together, was_restarted
from ganforge.commands.transfer import start_from
from ganforge.draws import derive_seed
from ganforge.games.game import Game
from ganforge.networks.freezing import freeze_
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.ema import EMA
from ganforge.training.fit import fit
from ganforge.training.loggers.logger import Loggers, RunInfo
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run
from ganforge.training.stopping import Stopping

log = logging.getLogger("ganforge")

_PARTS = (
    "experiment",
    "game",
    "model",
    "head",
    "loss",
    "penalty",
    "augment",
    "data",
    "optimizer",
    "schedule",
)
_HEAD_START_SECONDS = 2.0
_GRACE_SECONDS = 30.0  # for the loggers to close


def train(config: DictConfig) -> dict[str, float]:
    """One run, or one job of a multirun. Returns the final scores, and `images_per_second` of training.

    Raises:
        UserError: anything the user can put right, before training starts.
        RunFailedError: training ended badly; the run's folder says why.
    """
    slurm.join_step()
    if comes_after_the_first():
        if code := follow():
            raise RunFailedError("a process that is not the first one failed", code)
        return {}
    with leading(), slurm.noticing() as notice:
        return _lead(config, notice)


def _lead(config: DictConfig, notice: slurm.Notice) -> dict[str, float]:
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is None and (folder / "config.yaml").exists():
        if not (slurm.was_requeued() or was_restarted() or is_started_again()):
            raise UserError(
                f"{folder} already holds a run: resume={folder} goes on with it, hydra.run.dir=... makes another"
            )
        config.resume = str(folder)
    check_settings(plain(config))
    data = building.build(OmegaConf.to_container(config.data, resolve=True), "data")
    with user_errors():
        config.data.image_size, config.data.channels = data.image_size, data.channels
    config.data.num_classes = data.num_classes
    settings = plain(config)
    if config.resume is not None:
        settings = resumed_settings(settings, folder)
    checkpoint = last_checkpoint(folder) if config.resume is not None else None
    job = _Job(settings, folder, checkpoint, reports=is_job_of_a_sweep())
    parts = _assemble(job, data)
    job.chosen = parts.chosen
    module, run, state = parts.module, parts.run, parts.state
    run.goes_on = goes_on if job.reports else None
    images_seen = state["clock"]["images_seen"] if state else 0
    if state and _has_ended(state, run, settings):
        log.info("%s has ended; total_kimg=... larger, or another stop.KEY, goes on", folder)
        run.restore(state["ganforge"], same_scores=False)
        return _result(state["ganforge"]["final_scores"], run)
    with user_errors():
        parts.check_callbacks()
        parts.restore(settings)
    if is_started_again() and run.scored_at >= 0 and not goes_on(run.scores, run.scored_at):
        return _result(run.scores, run)  # the sweep had no time to hear of it, or to say so
    # The others come in once all is checked, and what had to be downloaded is there.
    with _sharing(job) as team:
        team.ranks.from_first(job)
        with user_errors():
            run.evaluator.prepare(data, _place(settings["trainer"], team), run.held_out)
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            write_config(folder, settings, _overrides(config))
            record_start(folder, command_line(), settings["seed"])
        _announce(settings, module.game, data, folder, images_seen, team.ranks.size)
        info = RunInfo(
            folder,
            settings["name"],
            settings["tags"],
            settings,
            images_seen,
            group=_group(settings, folder),
            parts=_chosen_parts(settings),
            data=lambda: _data_facts(data),
        )
        run.signal_seen = notice.seen
        seconds = _play(job, parts, info, team)
    _end_early(run, module, settings)
    record_end(folder, "pruned" if run.pruned else "ended", run.ended_because or f"{module.kimg:g} kimg")
    _conclude(run, module, seconds)
    return _result(run.final_scores, run)


def _end_early(run: Run, module: AdversarialModule, settings: Mapping[str, Any]) -> None:
    """
    Raises:
        RunFailedError: a signal, or a check of the run's health, stopped it.
    """
    folder = run.folder
    if run.stop_signal is not None:
        message = f"stopped by {run.stop_signal.name} at {module.kimg:g} kimg; {_go_on(folder)}"
        record_end(folder, "stopped", message)
        if (
            slurm.in_batch_job()
            and run.stop_signal in slurm.NOTICES
            and settings["trainer"].get("requeue", True)
        ):
            slurm.requeue()
        raise RunFailedError(message, 128 + run.stop_signal)
    if run.unhealthy is not None:
        message = f"{run.unhealthy}: stopped to stay healthy; {_go_on(folder)}"
        record_end(folder, "stopped", message)
        raise RunFailedError(message)


def _result(scores: Mapping[str, float], run: Run) -> dict[str, float]:
    """The final scores, and the speed that they were had at."""
    speed = run.images_per_second
    return {**scores, **({} if speed is None else {"images_per_second": speed})}


def follow() -> int:
    """What a process beside the first does: it plays the run that the first one has composed and checked.

    The settings come from there and not from this process's own command line: a sampled value, a time or a job's number
    in them cannot differ. Returns the exit code.
    """
    folder: Path | None = None
    try:
        with slurm.noticing() as notice, sharing(started_together()) as team:
            job: _Job = team.ranks.from_first(None)
            folder = job.folder
            job.settings["logger"] = {}
            data = building.build(job.settings["data"], "data")
            parts = _assemble(job, data)
            parts.restore(job.settings)
            parts.run.evaluator.prepare(data, _place(job.settings["trainer"], team), parts.run.held_out)
            parts.run.signal_seen = notice.seen
            parts.run.goes_on = (
                (lambda *_: True) if job.reports else None
            )  # the first process's answer counts
            _fit(job, parts, team)
    except NothingToDoError:
        return 0
    except Exception as error:
        time.sleep(_HEAD_START_SECONDS)  # the first process says what all meet, and ends this one
        said = f" {error}" if isinstance(error, RunFailedError | UserError) else f"\n{traceback.format_exc()}"
        print(f"ganforge: process {os.environ['RANK']}:{said}", file=sys.stderr)
        if folder and isinstance(error, RunFailedError):
            message = f"the first process did no more; {_go_on(folder)}"
            end_a_starter_that_hangs(_GRACE_SECONDS + 15, lambda: record_end(folder, "failed", message))
        return 1
    return 0


@dataclass
class _Job:
    """What a process needs to know to play its part of a run, as plain data.

    Attributes:
        chosen: what the first process does for speed; None before it has chosen, by its device and free memory.
        reports: whether the first process reports evaluations to a sweep, which may end the run.
    """

    settings: dict[str, Any]
    folder: Path
    checkpoint: Path | None
    chosen: fast.Fast | None = None
    reports: bool = False


@dataclass
class _Parts:
    """A run put together."""

    data: Any
    conditional: bool
    chosen: fast.Fast
    module: AdversarialModule
    run: Run
    callbacks: list[Any]
    state: dict[str, Any] | None

    def check_callbacks(self) -> None:
        for callback in self.callbacks:
            if isinstance(callback, Periodic):
                callback.check(self.run)

    def restore(self, settings: Mapping[str, Any]) -> None:
        if self.state:
            same_scores = self.state["ganforge"]["config"]["metrics"] == settings["metrics"]
            self.run.restore(self.state["ganforge"], same_scores=same_scores)
            if same_scores:
                self.run.evaluator.load_state(self.state["evaluator"])


def _assemble(job: _Job, data: Any) -> _Parts:
    settings = job.settings
    conditional = check_conditional(settings, data)
    check_ranks(settings)
    for part in ("model", "game"):
        building.leave_out_unknown_ways(settings[part], part)
    building.check(settings["model"], "model")
    torch.manual_seed(derive_seed(settings["seed"], "weights"))
    game = building.build(settings["game"], "game")
    check_discriminator(settings, game)
    check_packing(settings, game)
    check_styles(settings, game)
    chosen = job.chosen or fast.choose(settings, game, data, device_of(settings["trainer"]))
    fast.apply(chosen, game)
    try:
        frozen = freeze_(game.discriminator_side, settings.get("freeze_discriminator") or 0)
    except ValueError as error:
        raise UserError(f"freeze_discriminator={settings['freeze_discriminator']}: {error}") from error
    module = _module(settings, game, data, chosen, frozen)
    init = settings.get("init") or {}
    if frozen and init.get("path") is None and job.checkpoint is None and not comes_after_the_first():
        log.warning("freeze_discriminator without init=... freezes blocks that have learnt nothing")
    if init.get("path") is not None and job.checkpoint is None:
        said = start_from(init["path"], module, strict=init["strict"])
        if not comes_after_the_first():
            log.info("%s", said)
    run = _run(settings, job.folder, data, conditional)
    callbacks = [c for c in building.build(settings["callbacks"], "callbacks").values() if c]
    state = load_resumed(job.checkpoint, module, settings) if job.checkpoint else None
    return _Parts(data, conditional, chosen, module, run, callbacks, state)


def _sharing(job: _Job) -> AbstractContextManager[Team]:
    def on_death(who: str) -> None:
        message = f"{who}; {_go_on(job.folder)}"
        record_end(job.folder, "failed", message)
        print(f"ganforge: {message}", file=sys.stderr)

    return sharing(
        check_ranks(job.settings),
        ["train"],
        timeout_seconds=job.settings["trainer"].get("timeout_seconds", TIMEOUT_SECONDS),
        timeout_setting="trainer.timeout_seconds",
        grace_seconds=_GRACE_SECONDS,
        on_death=on_death,
    )


def _place(trainer: Mapping[str, Any], team: Team) -> torch.device:
    """The device that is this process's own among those of the machine."""
    if device_of(trainer).type != "cuda":
        return torch.device("cpu")
    team.take_gpu()
    return torch.device("cuda")


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
        held_out=held_out_data(settings, data),
        real_points=data.batch(torch.arange(min(len(data), 2000))) if len(data.shape) == 1 else None,
        stopping=stopping if asked else None,
        stop_signals=(signal.SIGINT, *(slurm.NOTICES if slurm.in_batch_job() else [signal.SIGTERM])),
        patient=slurm.in_batch_job(),
    )


def _has_ended(state: Mapping[str, Any], run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is of a run that reached its total, or stopped for a reason that still holds."""
    stored = state["ganforge"]
    same_stop = stored["config"].get("stop") == settings["stop"]
    return run.reached_total(state["clock"]["images_seen"]) or bool(stored["ended_because"] and same_stop)


def _fit(job: _Job, parts: _Parts, team: Team) -> None:
    settings, module, chosen = job.settings, parts.module, parts.chosen
    rounds = Rounds(
        parts.data,
        conditional=parts.conditional,
        images_per_round=module.images_per_round,
        seed=settings["seed"],
        start=lambda: module.images_seen,
        workers=settings["workers"],
        micro_batches=module.discriminator_steps * module.accumulate,
        ranks=team.ranks,
        resident=_place(settings["trainer"], team) if chosen.resident else None,
    )
    trainer = fast.trainer_arguments(chosen, settings["trainer"])
    trainer = {key: value for key, value in trainer.items() if key not in OWN_TRAINER_KEYS}
    trainer["devices"] = devices_of(trainer)
    fit(module, rounds, parts.run, parts.callbacks, job.checkpoint, **trainer)


def _play(job: _Job, parts: _Parts, info: RunInfo, team: Team) -> float:
    """Trains, and returns the seconds; however that ends, loggers are closed and the folder says how it did."""
    module, run = parts.module, parts.run
    exit_code, failure = 1, ""
    (run.folder / "failure.txt").unlink(missing_ok=True)
    start = time.perf_counter()
    run.loggers.start(info)
    try:
        _fit(job, parts, team)
        exit_code = int(run.unhealthy is not None) if run.stop_signal is None else 128 + run.stop_signal
    except NonFiniteLossError as error:
        kept = sorted(path.name for path in (run.folder / "checkpoints").glob("*.ckpt"))
        before = (
            f"{' and '.join(kept)} in {run.folder / 'checkpoints'}: from before"
            if kept
            else "no checkpoint yet"
        )
        failure = f"{error} before {module.kimg:g} kimg ({before}); try a lower learning rate, clip_norm or a penalty"
        record_end(run.folder, "failed", failure)
        raise RunFailedError(failure) from error
    except OSError as error:
        failure = f"{error}; {_go_on(run.folder)}"
        record_end(run.folder, "failed", failure)
        raise RunFailedError(failure) from error
    except BaseException as error:
        lost = _lost(error, team, run)
        failure = f"{lost or f'{type(error).__name__}: {error}'}; {_go_on(run.folder)}"
        record_end(run.folder, "failed", failure)
        if lost:
            raise RunFailedError(failure) from error
        raise
    finally:
        run.loggers.alert(*_outcome(run, module, failure), module.images_seen)
        run.loggers.finish(exit_code)
    return time.perf_counter() - start


def _lost(error: BaseException, team: Team, run: Run) -> str | None:
    """What a failed message between processes means, in words; None where the error is another one."""
    if team.ranks.size == 1 or not isinstance(error, RuntimeError):
        return None
    why = team.why(error)
    return f"{why} before {run.config['total_kimg']:g} kimg were reached" if why else None


def _go_on(folder: Path) -> str:
    return f"go on with: ganforge train resume={shlex.quote(str(folder))}"


def _conclude(run: Run, module: AdversarialModule, seconds: float) -> None:
    if run.pruned:
        log.info("%s", _go_on(run.folder))
        return
    log.info("done: %g kimg in %.0f s", module.kimg, seconds)
    if run.final_scores:
        made_by = run.evaluator.name
        comparable = (
            "comparable with papers" if run.evaluator.comparable_with_papers else "not comparable with papers"
        )
        log.info("scores by the %s extractor (%s):", made_by, comparable)
        for name, value in run.final_scores.items():
            log.info("  %-22s %.4g", name, value)
    if run.events:
        log.info("what was said of the run's health (health.jsonl):")
        for event in run.events:
            log.info("  %g kimg: %s", event["kimg"], event["message"])
    log.info("pictures, checkpoints and figures: %s", run.folder)


def _outcome(run: Run, module: AdversarialModule, failure: str) -> tuple[str, str]:
    """Title and text of what is told of a run that has ended."""
    name = f"{run.config['name']}/{run.folder.name}"
    if failure:
        return f"{name} failed", failure
    if run.stop_signal is not None:
        return f"{name} stopped", f"by {run.stop_signal.name} at {module.kimg:g} kimg; {_go_on(run.folder)}"
    scores = ", ".join(f"{figure} {value:.4g}" for figure, value in run.final_scores.items())
    because = f"{run.ended_because}: " if run.ended_because else ""
    return (
        f"{name} finished",
        f"{because}{module.kimg:g} kimg in {run.seconds:.0f} s; {scores or 'no scores'}",
    )


def _group(settings: Mapping[str, Any], folder: Path) -> str:
    """What a run is shown together with: the other jobs of its sweep, or other runs of its experiment."""
    if is_job_of_a_sweep():
        return folder.absolute().parent.name
    if HydraConfig.get().mode is RunMode.MULTIRUN:  # in a job of SLURM
        return Path(HydraConfig.get().sweep.dir).name
    return str(settings["name"])


def _chosen_parts(settings: Mapping[str, Any]) -> dict[str, str]:
    """The option of each group that makes the experiment; several of one group are joined."""
    choices = HydraConfig.get().runtime.choices
    parts = {group: choices.get(group) for group in _PARTS}
    parts["penalty"] = "+".join(settings["penalty"]) or None
    return {group: str(option) for group, option in parts.items() if option is not None}


def _data_facts(data: Any) -> dict[str, Any]:
    return {
        "name": data.name,
        "fingerprint": data.fingerprint(),
        "samples": len(data),
        "shape": list(data.shape),
        "classes": data.num_classes,
        "split": data.split,
    }


def _announce(
    settings: Mapping[str, Any], game: Game, data: Any, folder: Path, images_seen: int, ranks: int
) -> None:
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
    if ranks > 1:
        log.info("%d processes share each batch of %d", ranks, settings["batch_size"])
        check_shares(settings, game)
    log.info("%s %s", "going on in" if images_seen else "writing to", folder)


def _loggers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The loggers of a section that may also hold settings they share, such as `logger.mode`."""
    return {name: node for name, node in settings.items() if isinstance(node, dict)}


def _module(
    settings: Mapping[str, Any], game: Game, data: Any, chosen: fast.Fast, frozen: Sequence[nn.Module]
) -> AdversarialModule:
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
    building.check({"_target_": f"{EMA.__module__}.EMA", **settings["ema"]}, "ema", given={"source"})
    with user_errors():
        return AdversarialModule(
            game,
            **players,
            ema=EMA(game.generator_side, **building.build(settings["ema"], "ema")),
            seed=settings["seed"],
            batch_size=settings["batch_size"],
            discriminator_steps=settings["discriminator_steps"],
            accumulate=settings["accumulate"],
            flip=data.flip,
            channels_last=chosen.channels_last,
            frozen=frozen,
        )


def _overrides(config: DictConfig) -> list[str]:
    """What was asked on the command line, without the wish to resume; the user's own folders of YAML files first."""
    asked = [word for word in HydraConfig.get().overrides.task if not word.startswith("resume=")]
    sources = HydraConfig.get().runtime.config_sources
    folders = [s.path for s in sources if s.schema == "file" and "command-line" in s.provider]
    own = ",".join(quoted(f"file://{Path(folder).absolute()}") for folder in dict.fromkeys(folders))
    return [f"hydra.searchpath=[{own}]", *asked] if own else asked
