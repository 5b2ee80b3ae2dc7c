"""What the YAML files compute: `${at_most:}`, `${classes:}`, `${critic_norm:}`, `${packed:}` and other small things."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ganforge.commands.building import target_of, targets
from ganforge.commands.errors import UserError
from ganforge.commands.slurm import folder_name


def register() -> None:
    OmegaConf.register_new_resolver("at_most", lambda a, b: min(float(a), float(b)), replace=True)
    OmegaConf.register_new_resolver("classes", _classes, replace=True)
    OmegaConf.register_new_resolver("critic_norm", _critic_norm, replace=True)
    OmegaConf.register_new_resolver("packed", _packed, replace=True)
    OmegaConf.register_new_resolver("partial", _partial, replace=True)
    OmegaConf.register_new_resolver("slurm_or", folder_name, replace=True)
    OmegaConf.register_new_resolver("times", lambda a, b: float(a) * float(b), replace=True)


def _classes(conditional: bool | None, num_classes: int | None, *, _root_: DictConfig) -> int:
    """How many classes the networks are told of: the data's, unless the run is unconditional."""
    if conditional is None:
        conditional = not getattr(_game(_root_), "unsupervised", False)
    return (num_classes or 0) if conditional else 0


def _game(config: DictConfig) -> Any:
    """The class of the game, as far as it is known."""
    node = config._get_node("game")  # not resolved: what it holds may ask for this
    name = node.get("_target_") if isinstance(node, DictConfig) and OmegaConf.is_dict(node) else None
    with contextlib.suppress(UserError):  # said where the game is built
        return target_of({"_target_": name}, "game") if name else None
    return None


def _partial(node: Any) -> dict[str, Any]:
    """A part's configuration such that the part is made by whoever is handed it, maybe more than once."""
    return {**OmegaConf.to_container(node, resolve=True), "_partial_": True}  # type: ignore[dict-item]


def _critic_norm(preferred: str, *, _root_: DictConfig) -> str:
    """The discriminator's normalisation: the preferred one, or `none` where batch norm is out of place.

    Batch norm makes a critic's output for one image depend on the others, so that a penalty on the gradient of each
    image's output, or a Lipschitz bound, means nothing (Gulrajani et al. 2017, section 4).
    """
    return "none" if preferred == "batch" and forbids_batch_norm(_root_) else preferred


def _packed(channels: int | None, *, _root_: DictConfig) -> int | None:
    """The channels that the discriminator sees: those of all images that it judges as one."""
    game = _root_.get("game")
    packing = max(1, int(game.get("packing", 1))) if OmegaConf.is_dict(game) else 1
    return None if channels is None else channels * packing


def forbids_batch_norm(config: Mapping[str, Any]) -> bool:
    """Whether the loss or a penalty of this configuration cannot be used with batch norm in the discriminator."""
    parts = [*targets(_plain(config["loss"]), "loss"), *targets(_plain(config["penalty"]), "penalty")]
    classes = [target_of(node, key) for key, node in parts]
    return any(
        getattr(c, "needs_lipschitz", False) or getattr(c, "forbids_batch_norm", False) for c in classes
    )


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
