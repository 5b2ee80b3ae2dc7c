"""`train resume=FOLDER`: the run's own settings with what is asked now on top, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from ganforge.commands.checkpoints import why_unreadable
from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError
from ganforge.commands.run_folder import read_config
from ganforge.training.checkpoint_file import AtomicCheckpointIO
from ganforge.training.module import AdversarialModule

# What a resumed run has to share with its checkpoint; lengths, periods, loggers and learning rates may change.
FIXED_ON_RESUME = (
    "game",
    "data",
    "seed",
    "batch_size",
    "discriminator_steps",
    "accumulate",
    "conditional",
    "freeze_discriminator",
)


def last_checkpoint(folder: Path) -> Path | None:
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.exists() else None


def resumed_settings(asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The run's own settings, with what was asked on top of them now.

    Hydra has composed the run's old overrides and the new ones; composing the old ones alone shows what the new ones
    changed, and only that is taken over: defaults that changed since the run started do not touch it.
    """
    stored, old_overrides = read_config(folder)
    before = plain(_with_facts(compose(config_name="train", overrides=old_overrides), stored))
    stored.setdefault("fast", before["fast"])  # runs of before there were settings for speed
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


def load_resumed(path: Path, module: AdversarialModule, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint, once it is sure that it is whole and of this model."""
    try:
        state: dict[str, Any] = AtomicCheckpointIO().load_checkpoint(path)
        stored = state["ganforge"]["config"]
    except Exception as error:
        best = path.with_name("best.ckpt")
        way_out = f"copy {best} over it to go on from there" if best.exists() else "start a new run"
        raise UserError(f"{path} is not a whole checkpoint ({why_unreadable(error)}); {way_out}") from error
    for key in FIXED_ON_RESUME:
        difference = _first_difference(stored.get(key), settings.get(key), key)
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


def _first_difference(stored: Any, asked: Any, key: str) -> str | None:
    """`key is STORED there and ASKED here` for the first place where two configurations differ."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for name in [*stored, *(n for n in asked if n not in stored)]:
            difference = _first_difference(stored.get(name), asked.get(name), f"{key}.{name}")
            if difference:
                return difference
        return None
    return None if stored == asked else f"{key} is {stored!r} there and {asked!r} here"
