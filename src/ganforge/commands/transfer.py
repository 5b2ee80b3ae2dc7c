"""`train init=PATH`: both players, and the generator's moving average, start from another run's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ganforge.commands.checkpoints import checkpoint_file, why_unreadable
from ganforge.commands.errors import UserError
from ganforge.training.checkpoint_file import AtomicCheckpointIO
from ganforge.training.module import AdversarialModule

PARTS = {
    "generator": "game.generator_side.",
    "discriminator": "game.discriminator_side.",
    "moving average": "ema.average.",
}
_NAMED = 3  # weights in a message


@torch.no_grad()
def start_from(path: str, module: AdversarialModule, *, strict: bool) -> str:
    """Takes the weights and buffers of a checkpoint, or of a run's best one, that have a module's names and shapes.

    Optimizers, the clock and whatever else a run has gathered start anew. Returns a line that says what was taken.

    Raises:
        UserError: no whole checkpoint, one of which nothing fits, or with `strict` not everything.
    """
    file = checkpoint_file(Path(path).expanduser(), "init")
    try:
        state = AtomicCheckpointIO().load_checkpoint(file)
        stored: dict[str, Tensor] = state["state_dict"]
        kimg = state["clock"]["images_seen"] / 1000
    except Exception as error:
        raise UserError(
            f"init={file} is not a whole ganforge checkpoint ({why_unreadable(error)})"
        ) from error
    own = module.state_dict()
    counts, others, weights_taken = [], [], 0
    for part, prefix in PARTS.items():
        mine = {name: tensor for name, tensor in own.items() if name.startswith(prefix)}
        theirs = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}
        fitting = [name for name in mine if name in theirs and mine[name].shape == theirs[name].shape]
        counts.append(f"{len(fitting)} of the {part}'s {len(mine)} tensors")
        weights_taken += sum(mine[name].ndim > 0 for name in fitting)
        if part != "moving average":  # which lacks what the generator lacks
            lacking = [name for name in [*mine, *(n for n in theirs if n not in mine)] if name not in fitting]
            others += [
                _difference(name.removeprefix("game."), theirs.get(name), mine.get(name)) for name in lacking
            ]
    if not weights_taken:
        raise UserError(
            f"init={file}: none of its weights fits this model by name and shape ({_some(others)})"
        )
    if strict and others:
        raise UserError(
            f"init={file} does not fit this model: {_some(others)}; init.strict=false takes what fits"
        )
    for name, tensor in own.items():
        if name.startswith(tuple(PARTS.values())) and name in stored and stored[name].shape == tensor.shape:
            tensor.copy_(stored[name])
    left = f"; not taken: {_some(others)}" if others else ""
    return f"starting from {file} at {kimg:g} kimg: {', '.join(counts)}{left}"


def _difference(name: str, there: Tensor | None, here: Tensor | None) -> str:
    there_is, here_is = (None if tensor is None else tuple(tensor.shape) for tensor in (there, here))
    if there_is is None:
        return f"{name} is missing there"
    return f"{name} is {there_is} there and {'missing' if here_is is None else here_is} here"


def _some(texts: list[str]) -> str:
    more = len(texts) - _NAMED
    return "; ".join(texts[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
