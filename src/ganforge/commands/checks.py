"""What can be told of a run's settings and parts before it starts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from torch import nn

from ganforge.augmentations.augmentation import Augmentation
from ganforge.commands import building
from ganforge.commands.errors import UserError
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.resolvers import forbids_batch_norm
from ganforge.commands.started import started_together
from ganforge.games.game import Game
from ganforge.training.player import optimizer_ends

log = logging.getLogger("ganforge")

# Arguments of lightning.Trainer that mean the same here; the others count optimizer steps, or are set by `fit`.
TRAINER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "sync_batchnorm",
    "timeout_seconds",
    "requeue",
    "precision",
    "deterministic",
    "benchmark",
    "detect_anomaly",
    "profiler",
)
OWN_TRAINER_KEYS = ("timeout_seconds", "requeue")  # the others are Lightning's
STOP_SETTINGS = ("metric", "patience_kimg")  # every other key of `stop` is a figure with its target
TIMEOUT_SECONDS = 1800.0
LONGEST_TIMEOUT_SECONDS = 30 * 24 * 3600.0
PRECISIONS = ("32-true", "bf16-mixed", "64-true")


def check_settings(settings: Mapping[str, Any]) -> None:
    """What can be known to be wrong before the data are read, which may take long."""
    for key in (
        "loss",
        "conditioning",
        "head",
        "augment",
        "penalty",
        "optimizer",
        "schedule",
        "metrics",
        "callbacks",
        "logger",
    ):
        building.check(settings[key], key)
    check_trainer(settings["trainer"])
    _check_game(settings["game"])
    _check_conditioning(settings)
    for key in ("total_kimg", "batch_size"):
        if not 0 < settings[key] < math.inf:
            raise UserError(f"{key}={settings[key]:g} must be greater than 0 and finite")
    for key, value in settings["stop"].items():
        if key != "metric" and value is not None and not isinstance(value, int | float):
            raise UserError(f"stop.{key}={value} should be a number")
    if not settings["name"]:
        raise UserError("name= is empty: it names the folder of the experiment's runs")
    frozen = settings.get("freeze_discriminator")
    names = isinstance(frozen, list) and all(isinstance(name, str) for name in frozen)
    if not (frozen is None or type(frozen) is int or names):
        raise UserError(
            f"freeze_discriminator={frozen}: it should be a number of blocks, or a list of names such as [layers.0]"
        )
    if settings["workers"] < 0:
        raise UserError(f"workers={settings['workers']} must be at least 0 (0: no other processes)")


def _check_game(config: Mapping[str, Any]) -> None:
    """Nothing is asked for that the game has no part for, and would be left out in silence."""
    game = building.target_of(config, "game") if "_target_" in config else None
    asked = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for word in asked:
        if word.split("=")[0] in getattr(game, "has_no_part_for", ()):
            raise UserError(f"{word}: {game.__name__} has no part for it; leave it out")  # type: ignore[union-attr]


def _check_conditioning(settings: Mapping[str, Any]) -> None:
    generator = settings["model"].get("generator", {})
    if settings["conditioning"] is not None and "conditioning" not in generator:
        raise UserError(
            f"conditioning=...: {generator.get('_target_')} takes labels in its own way, as its configuration has no "
            "conditioning; leave it out, or see docs/own_parts.md"
        )


def check_trainer(trainer: Mapping[str, Any]) -> None:
    for key in trainer:
        if key not in TRAINER_KEYS:
            raise UserError(
                f"trainer.{key}: there is no such setting, it can be {', '.join(TRAINER_KEYS)}"
                f"{did_you_mean(key, TRAINER_KEYS)}; how long a run is says total_kimg=..."
            )
    timeout = trainer.get("timeout_seconds", TIMEOUT_SECONDS)
    if not isinstance(timeout, int | float) or not 0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        raise UserError(
            f"trainer.timeout_seconds={timeout} should be a number greater than 0, and at most "
            f"{LONGEST_TIMEOUT_SECONDS:.0f} (30 days)"
        )
    precision = trainer.get("precision", "32-true")
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision}: it can be {', '.join(PRECISIONS)} (16-mixed would need a gradient scaler "
            "for each player, and the steps of a moving average are too small for weights in bf16-true)"
        )
    if not isinstance(trainer.get("requeue", True), bool):
        raise UserError(f"trainer.requeue={trainer['requeue']}: it should be true or false")
    for_lightning = {key: value for key, value in trainer.items() if key not in OWN_TRAINER_KEYS}
    building.check({"_target_": "lightning.Trainer", **for_lightning}, "trainer")
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
    _check_devices(trainer)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    for key in ("devices", "num_nodes"):
        value = trainer.get(key, 1)
        if not (str(value).isdecimal() and int(value) >= 1) and not (key == "devices" and value == "auto"):
            one_of = ", or auto" if key == "devices" else ""
            raise UserError(f"trainer.{key}={value}: it should be a whole number from 1 up{one_of}")
    devices, nodes = devices_of(trainer), int(trainer.get("num_nodes", 1))
    kind = device_of(trainer).type
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise UserError(
            f"trainer.devices={devices}: this machine has {torch.cuda.device_count()} GPUs; trainer.devices=auto takes "
            "all there are"
        )
    if kind == "mps" and devices > 1:
        raise UserError(
            f"trainer.devices={devices}: there is one device here; trainer.accelerator=cpu takes any number"
        )
    if trainer.get("sync_batchnorm") and kind != "cuda":
        raise UserError("trainer.sync_batchnorm=true works on GPUs only: leave it out here")
    started = started_together()
    if started > 1 and started != devices * nodes:
        raise UserError(
            f"{started} processes were started, but trainer.devices={devices} on trainer.num_nodes={nodes} are "
            f"{devices * nodes}: both have to say the same, as trainer=ddp trainer.devices={started} does here"
        )
    if nodes > 1 and started == 1:
        raise UserError(
            f"trainer.num_nodes={nodes}: start ganforge on each machine with torchrun --nnodes {nodes} "
            f"--nproc-per-node {devices} -m ganforge train ..., or under SLURM with srun --nodes {nodes} "
            f"--ntasks-per-node {devices} ganforge train ..."
        )


def device_of(trainer: Mapping[str, Any]) -> torch.device:
    """The kind of device that the trainer takes."""
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def devices_of(trainer: Mapping[str, Any]) -> int:
    """How many processes there are on each machine, with a device each."""
    devices = trainer.get("devices", 1)
    if devices == "auto":
        return torch.cuda.device_count() if device_of(trainer).type == "cuda" else 1
    return int(devices)


def check_ranks(settings: Mapping[str, Any]) -> int:
    """How many processes play together, each with an equal share of every micro-batch."""
    trainer, batch, parts = settings["trainer"], settings["batch_size"], settings["accumulate"]
    ranks = devices_of(trainer) * int(trainer.get("num_nodes", 1))
    if ranks > 1 and batch % (parts * ranks):
        unit = parts * ranks
        near = [n for n in (batch // unit * unit, (batch // unit + 1) * unit) if n]
        raise UserError(
            f"batch_size={batch} cannot be dealt out to trainer.devices x num_nodes = {ranks} processes"
            f"{f' in accumulate={parts} micro-batches' if parts > 1 else ''}: "
            f"batch_size={' or '.join(map(str, near))} can"
        )
    return ranks


def check_shares(settings: Mapping[str, Any], game: Game) -> None:
    """Says what takes each process's share for the whole batch, and so differs from what one process does."""
    parts: list[Any] = [getattr(game, "loss", None), *game.modules()]
    names = [type(part).__name__ for part in parts if getattr(part, "of_whole_batch", False)]
    share = settings["batch_size"] // settings["accumulate"] // check_ranks(settings)
    names += [type(part).__name__ for part in parts if share % getattr(part, "group_size", 1)]
    found = list(dict.fromkeys(names))
    if getattr(game, "top_k", None) is not None:
        found.append("game.top_k")
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in game.modules())
    if norms and not settings["trainer"].get("sync_batchnorm"):
        found.append("batch norm")
    if found:
        log.warning(
            "%s: each process takes its own share of the batch for the whole, so that several processes do not give "
            "exactly what one does",
            ", ".join(found),
        )


def check_conditional(settings: Mapping[str, Any], data: Any) -> bool:
    game = building.target_of(settings["game"], "game") if "_target_" in settings["game"] else None
    if settings["conditional"] and not getattr(game, "takes_labels", True):
        raise UserError(
            f"conditional=true: {game.__name__} is played without labels; leave it out"  # type: ignore[union-attr]
        )
    if settings["conditional"] and data.num_classes == 0:
        raise UserError(
            f"conditional=true needs labels, and {data.name} has none: leave conditional=true out, or use data with "
            "classes (for image_folder: a sub-folder each, or a dataset.json)"
        )
    return bool(settings["num_classes"])


def check_packing(settings: Mapping[str, Any], game: Game) -> None:
    packing = getattr(game, "packing", 1)
    if packing == 1:
        return
    if settings["num_classes"]:
        raise UserError(
            f"game.packing={packing} shows the discriminator several images as one, which have no label in common: "
            "add conditional=false"
        )
    ranks, parts = check_ranks(settings), settings["accumulate"]
    if settings["batch_size"] % (packing * parts * ranks):
        raise UserError(
            f"batch_size={settings['batch_size']} in accumulate={parts} micro-batches on {ranks} processes cannot be "
            f"dealt out in packs of game.packing={packing}: a multiple of {packing * parts * ranks} can"
        )
    there, needed = (
        settings["model"]["discriminator"].get("channels"),
        packing * settings["data"]["channels"],
    )
    if there != needed:
        raise UserError(
            f"game.packing={packing} needs a discriminator of {needed} channels, and model.discriminator.channels is "
            f"{there}: ${{packed:${{data.channels}}}} gives them"
        )


def check_styles(settings: Mapping[str, Any], game: Game) -> None:
    for name, callback in settings["callbacks"].items():
        psi = (callback or {}).get("truncation_psi")
        if psi is not None and not hasattr(game.generator_side, "mean_style"):
            raise UserError(
                f"callbacks.{name}.truncation_psi={psi}: this model has no styles, as model=stylegan2 has; "
                f"callbacks.{name}.truncation=... bounds z"
            )


def check_discriminator(settings: Mapping[str, Any], game: Game) -> None:
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
    for name, module in game.named_modules():
        if (
            isinstance(module, Augmentation)
            and module.needs_images
            and settings["data"]["image_size"] is None
        ):
            raise UserError(
                f"game.{name}: {type(module).__name__} changes images, and the data are points: leave it out, or take "
                "augment=instance_noise"
            )
    loss, penalties = game.loss, dict(game.penalties.items())  # type: ignore[operator,union-attr]
    spectral = any("parametrizations" in name for name, _ in game.discriminator_side.named_parameters())
    bounded = spectral or any(getattr(p, "bounds_critic", False) for p in penalties.values())
    if getattr(loss, "needs_lipschitz", False) and not bounded:
        log.warning(
            "this loss needs a critic whose slope is bounded, and nothing here bounds it: add "
            "penalty=[gradient_penalty], penalty=[weight_clipping] or a model with spectral norm (model=sngan)"
        )


def check_optimizer(side: str, optimizer: Any) -> None:
    """Optimizers are made once training starts; what they find wrong with their numbers is said now."""
    try:
        for at_its_time in optimizer_ends(optimizer):
            at_its_time([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"optimizer.{side}: {error}") from error
