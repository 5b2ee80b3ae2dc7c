"""The settings under `fast`: which of them a run takes, and what cannot go together, said before it starts."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ganforge.commands.checks import check_ranks
from ganforge.commands.errors import UserError
from ganforge.games.game import Game
from ganforge.games.synthesis import Synthesis
from ganforge.penalties.penalty import CriticPenalty, DiscriminatorPenalty, GeneratorPenalty
from ganforge.schedules import mapped


@dataclass(frozen=True)
class Fast:
    """What a run does for speed; every field is the setting `fast.<field>`."""

    channels_last: bool = False
    compile: bool = False
    bf16: bool = False
    fused_pass: bool = False
    reuse_fakes: bool = False
    tf32: bool = False
    resident: bool = False


def choose(settings: Mapping[str, Any], game: Game, data: Any, device: torch.device) -> Fast:
    """What was asked for, and with `fast.all` everything else that pays on this device and keeps the algorithm.

    Raises:
        UserError: two settings that exclude one another, both named.
    """
    asked = {name: value for name, value in settings["fast"].items() if name in Fast.__dataclass_fields__}
    chosen = Fast(**{name: bool(value) for name, value in asked.items()})
    if settings["fast"]["all"]:
        taken = _safe(settings, game, data, device)
        chosen = Fast(**{n: getattr(taken, n) if v is None else v for n, v in asked.items()})
    _check(chosen, settings, game, data, device)
    return chosen


def _safe(settings: Mapping[str, Any], game: Game, data: Any, device: torch.device) -> Fast:
    """All but `reuse_fakes`, which changes the algorithm, and `compile`, which takes long and needs a compiler."""
    cuda = device.type == "cuda"
    convolves = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in game.modules())
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _cpu_has_bf16()
    side = game.discriminator_side
    one_pass = isinstance(game, Synthesis) and not _batch_norm(side) and not _mixer(side, settings)
    return Fast(
        channels_last=convolves,
        bf16=convolves and has_bf16 and settings["trainer"].get("precision", "32-true") == "32-true",
        # Two passes over a small batch are no slower on a CPU; there it saves the second power iteration only.
        fused_pass=one_pass and (cuda or _spectral_norm(side)),
        tf32=cuda,
        resident=cuda and data.in_memory and _bytes(data) < torch.cuda.mem_get_info(device)[0] / 4,
    )


def _check(fast: Fast, settings: Mapping[str, Any], game: Game, data: Any, device: torch.device) -> None:
    side = game.discriminator_side
    for name in ("compile", "fused_pass", "reuse_fakes"):
        if getattr(fast, name) and not isinstance(game, Synthesis):
            raise UserError(
                f"fast.{name}=true: {type(game).__name__} cannot be played so; game=synthesis can"
            )
        if name != "fused_pass" and getattr(fast, name) and getattr(game, "latent_optimisation", None):
            raise UserError(
                f"fast.{name}=true does not go with game.latent_optimisation, whose fakes are made anew by each player "
                f"and differentiated twice: fast.{name}=false"
            )
    if fast.channels_last and len(data.shape) != 3:
        raise UserError(f"fast.channels_last=true is for images, and {data.name} holds vectors: leave it out")
    if fast.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise UserError(
            "fast.compile=true needs a C++ compiler, and there is no g++ or clang++ on the PATH: install one, or "
            "fast.compile=false"
        )
    norm = _batch_norm(side)
    if fast.fused_pass and norm:
        raise UserError(
            f"fast.fused_pass=true does not go with batch norm in the discriminator (at {norm}), which would mix the "
            "statistics of real and fake: model.discriminator.norm=none or layer, or fast.fused_pass=false"
        )
    mixer = _mixer(side, settings)
    if fast.fused_pass and mixer:
        raise UserError(
            f"fast.fused_pass=true does not go with {mixer} in the discriminator, which would compare real and fake "
            "images with one another: fast.fused_pass=false"
        )
    if fast.compile and _spectral_norm(side) and not fast.fused_pass:
        raise UserError(
            "fast.compile=true does not go with spectral norm and two passes of the discriminator before one "
            "backward: add fast.fused_pass=true"
        )
    if fast.compile and _spectral_norm(side) and getattr(game, "judges_again", False):
        raise UserError(
            f"fast.compile=true does not go with spectral norm in {type(game).__name__}, whose discriminator is asked "
            "twice before it is differentiated: fast.compile=false"
        )
    parts = getattr(game, "penalties", {}).items()
    penalties = [
        name
        for name, part in parts
        if isinstance(part, CriticPenalty | DiscriminatorPenalty | GeneratorPenalty)
    ]
    if fast.compile and _spectral_norm(side) and penalties:
        raise UserError(
            f"fast.compile=true does not go with spectral norm and penalty=[{penalties[0]}], whose pass may move "
            "the norm's vectors on before the compiled one is differentiated: leave one of them out"
        )
    if fast.reuse_fakes and settings["accumulate"] > 1:
        raise UserError(
            f"fast.reuse_fakes=true does not go with accumulate={settings['accumulate']}, which does not keep the "
            "fakes of all micro-batches: accumulate=1, or fast.reuse_fakes=false"
        )
    precision = settings["trainer"].get("precision", "32-true")
    if fast.bf16 and precision not in ("32-true", "bf16-mixed"):
        raise UserError(
            f"fast.bf16=true does not go with trainer.precision={precision}: leave one of them out"
        )
    if fast.tf32 and device.type != "cuda":
        raise UserError("fast.tf32=true is for NVIDIA GPUs, and trainer.accelerator trains on the CPU here")
    if fast.resident and not data.in_memory:
        larger = "data.memory_gb=... larger, or " if "memory_gb" in settings["data"] else ""
        raise UserError(
            f"fast.resident=true needs data in memory, and {data.name} is read from files as it is needed: "
            f"{larger}fast.resident=false"
        )


def apply(fast: Fast, game: Game) -> None:
    """Makes the game's networks and rules what was chosen; before anything is copied from them."""
    if fast.channels_last:
        game.to(memory_format=torch.channels_last)
    if isinstance(game, Synthesis):
        game.fused_pass, game.reuse_fakes = fast.fused_pass, fast.reuse_fakes
        if fast.compile:
            game.compile_players()
    # For convolutions PyTorch allows TF32 by default; in a sweep the next job may not want it for products.
    torch.set_float32_matmul_precision("high" if fast.tf32 else "highest")


def trainer_arguments(fast: Fast, trainer: Mapping[str, Any]) -> dict[str, Any]:
    return {**trainer, "precision": "bf16-mixed"} if fast.bf16 else dict(trainer)


def corrected_for_lazy_penalties(optimizer: Any, penalties: Mapping[str, Any]) -> Any:
    """The discriminator's optimizer with learning rate and betas for penalties due each `every`-th round.

    lr' = c·lr and β' = β^c with c = every / (every + 1): the step with a penalty counts as one more step of the same
    length (Karras et al. 2020, appendix B).

    Raises:
        UserError: the penalties are due at different rounds, or in each.
    """
    due = {p.every for p in penalties.values() if p.every > 1 and p.player == "discriminator"}
    if len(due) != 1:
        found = f"they have {', '.join(map(str, sorted(due)))}" if due else "none has"
        raise UserError(f"fast.lazy_correction=true needs penalties with one `every` above 1, and {found}")
    keywords = optimizer.keywords if isinstance(optimizer, functools.partial) else {}
    if "lr" not in keywords:
        raise UserError("fast.lazy_correction=true needs optimizer.discriminator.lr=...")
    every = due.pop()
    c = every / (every + 1)
    corrected: dict[str, Any] = {"lr": mapped(keywords["lr"], lambda rate: rate * c)}
    if "betas" in keywords:
        corrected["betas"] = tuple(mapped(beta, lambda b: b**c) for beta in keywords["betas"])
    return functools.partial(optimizer, **corrected)


def _batch_norm(side: nn.Module) -> str | None:
    """The name of the first batch-norm layer."""
    return next((n for n, m in side.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)), None)


def _mixer(side: nn.Module, settings: Mapping[str, Any]) -> str | None:
    """The first layer that tells an image by the others of its batch, and not by a group that divides it."""
    batch = settings["batch_size"] // settings["accumulate"] // check_ranks(settings)
    for module in side.modules():
        if getattr(module, "mixes_samples", False) or batch % getattr(module, "group_size", 1):
            return type(module).__name__
    return None


def _spectral_norm(side: nn.Module) -> bool:
    return any("parametrizations" in name for name, _ in side.named_parameters())


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where it is converted to and fro, float32 is faster."""
    mkldnn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return mkldnn is not None and bool(mkldnn())


def _bytes(data: Any) -> int:
    sample: torch.Tensor = data.batch(torch.zeros(1, dtype=torch.int64))
    return len(data) * sample.numel() * sample.element_size()
