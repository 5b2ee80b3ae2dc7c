"""Files of weights, read without running what they may hold."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_LONGEST_REASON = 300


class WeightsError(ValueError):
    """Weights are not to be had; the message says which, why, and what else can be done."""


def read_weights(path: str | Path, ways_out: str = "") -> dict[str, Tensor]:
    """The tensors of a state dict by name, on the CPU, from a .safetensors file or one of `torch.save`.

    Raises:
        WeightsError: no such file, a damaged one, one that holds code, or something other than tensors by name.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the unpickler stumble over
        if isinstance(error, SafetensorError | OSError | pickle.UnpicklingError):
            reason = _first_line(error)
        else:
            reason = f"{type(error).__name__}: {_first_line(error)}"
        raise WeightsError(
            f"{path} is not a readable file of weights ({reason}). {ways_out}".strip()
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"{path} holds {_described(weights)}, not tensors by name. {ways_out}".strip())
    return weights


def check_torchscript(path: str | Path, ways_out: str = "") -> None:
    """See that a file is a whole TorchScript archive before it is opened as one.

    Raises:
        WeightsError: it is not.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path} is not a readable file of weights ({error}). {ways_out}".strip()
        ) from error
    # As TorchScript itself is told from other zip files of PyTorch.
    if not any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{path} is not a readable file of weights (not a TorchScript archive). {ways_out}".strip()
        )


@contextmanager
def said_plainly(whose: str, source: str, ways_out: str) -> Iterator[None]:
    """Turn what downloading and loading raise into one WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except (
        *(OSError, HTTPException, EOFError, pickle.UnpicklingError),
        *(RuntimeError, KeyError, AttributeError, ValueError),
    ) as error:
        reason = " ".join(str(error).split())
        if len(reason) > _LONGEST_REASON:  # a file of another network lacks hundreds of names
            reason = f"{reason[:_LONGEST_REASON]} ..."
        raise WeightsError(
            f"{whose}'s weights cannot be had from {source}: {reason}. {ways_out}".strip()
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _described(weights: object) -> str:
    if not isinstance(weights, dict):
        return f"a {type(weights).__name__}"
    name, value = next((name, value) for name, value in weights.items() if not isinstance(value, Tensor))
    return f"a {type(value).__name__} under {name!r}"
