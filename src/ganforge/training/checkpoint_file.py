"""Checkpoint files: written whole or not at all, read as plain data only."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target and renames: a kill or a full disk during the write leaves the old file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            with temporary.open("wb") as file:
                _save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return state

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """torch.save, whose writer turns a full disk into a RuntimeError about positions."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise OSError(
            errno.EIO, f"the file could not be written whole ({str(error).splitlines()[0]})"
        ) from error
