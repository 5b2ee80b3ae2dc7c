"""A checkpoint as something to sample from and to evaluate: no data set, no login, no GPU needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganforge.commands import building
from ganforge.commands.errors import UserError, user_errors
from ganforge.draws import Draws
from ganforge.games.game import Game


@dataclass
class Trained:
    """What a checkpoint holds, ready to use.

    Attributes:
        path: its file.
        sha256: of the file.
        game: built from the checkpoint's own configuration, with its discriminator's weights.
        generator_side: the moving average, or the raw weights, in evaluation mode.
        config: the run's resolved configuration.
        class_counts, class_names: of the training data; empty for an unconditional run.
        evaluator_state: what the run's evaluator kept of the real data.
        run, kimg: where it comes from: the run's folder, and the images seen in thousands.
        device: where the weights are.
    """

    path: Path
    sha256: str
    game: Game
    generator_side: nn.Module
    config: dict[str, Any]
    run: str
    kimg: float
    class_counts: list[int]
    class_names: list[str]
    evaluator_state: dict[str, Any]
    device: torch.device

    def sample(self, draws: Draws, labels: Tensor) -> Tensor:
        return self.game.sample(draws, labels, self.generator_side)


def load_trained(
    path: str, *, ema: bool, device: torch.device, trust: Sequence[str], key: str = "checkpoint"
) -> Trained:
    """Reads a checkpoint file, or the best (else the last) one of a run's folder.

    Raises:
        UserError: no such file, not a whole checkpoint, or parts that are not ganforge's.
    """
    file = checkpoint_file(Path(path).expanduser(), key)
    with user_errors():
        content = file.read_bytes()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        facts, weights = state["ganforge"], state["state_dict"]
        config, clock = facts["config"], state["clock"]
        run, class_counts, class_names = facts["run"], facts["class_counts"], facts["class_names"]
        building.refuse_untrusted(config["game"], "game", trust)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{key}={file} is not a whole ganforge checkpoint ({why_unreadable(error)})"
        ) from error
    game = building.build(config["game"], "game")
    side = game.generator_side
    prefix = "ema.average." if ema else "game.generator_side."
    try:
        side.load_state_dict(_below(prefix, weights))
        game.discriminator_side.load_state_dict(_below("game.discriminator_side.", weights))
    except RuntimeError as error:
        raise UserError(
            f"{key}={file} does not fit its own model: {str(error).splitlines()[-1].strip()}"
        ) from error
    return Trained(
        path=file,
        sha256=hashlib.sha256(content).hexdigest(),
        game=game.to(device),
        generator_side=side.eval().requires_grad_(False),
        config=config,
        run=run,
        kimg=clock["images_seen"] / 1000,
        class_counts=class_counts,
        class_names=class_names,
        evaluator_state=state.get("evaluator", {}),
        device=device,
    )


def _below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def why_unreadable(error: Exception) -> str:
    """What is wrong with a checkpoint, from what reading it raised; none of torch's advice to read it unsafely."""
    code = re.search(r"(?:unsupported|Unsupported global:) GLOBAL (\S+)", str(error))
    if code:
        return f"it holds code, {code.group(1)}, which was not run"
    if isinstance(error, KeyError):
        return f"it holds no {error}"
    return "it is empty, cut off, damaged or something else"


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one.

    Raises:
        UserError: no device of that name here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise UserError(f"device={name} is not known: it can be auto, cpu, cuda, cuda:1, mps or xpu")
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except Exception as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise UserError(f"device={name} cannot be used here: {reason}; device=cpu can") from error


def checkpoint_file(path: Path, key: str) -> Path:
    """The file itself, or the best, else the last, of a run's folder.

    Raises:
        UserError: there is none.
    """
    if path.is_dir():
        for name in ("best.ckpt", "last.ckpt"):
            for candidate in (path / "checkpoints" / name, path / name):
                if candidate.is_file():
                    return candidate
        raise UserError(f"{key}={path} is a folder without checkpoints/best.ckpt or checkpoints/last.ckpt")
    if not path.is_file():
        raise UserError(f"{key}={path} does not exist")
    return path
