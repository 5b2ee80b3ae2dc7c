"""Files named after what they were made from, so that a stale one is never found: real features, weights."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ganforge.cache_folder import default_cache_dir
from ganforge.evaluation.classifier import weights_hash

log = logging.getLogger(__name__)


class Cache:
    """Tensors in safetensors files, each with the hash of its content; a damaged file counts as absent."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_cache_dir() if folder is None else Path(folder)

    def path(self, kind: str, *parts: str | int | None) -> Path:
        """The file for what `parts` determine."""
        return self.folder / f"{kind}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.safetensors"

    def load(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors on the CPU, or None when there is no such file or it is damaged."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                expected = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError) as error:
            log.warning("%s cannot be read (%s) and is made anew", path, error)
            return None
        if weights_hash(tensors) != expected:
            log.warning("%s is damaged and is made anew", path)
            return None
        return tensors

    def save(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write in one step; a folder that cannot be written to costs the next run time, and no more."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
            os.close(handle)
            try:
                save_file(tensors, temporary, metadata={"sha256": weights_hash(tensors)})
                os.replace(temporary, path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            log.warning("%s cannot be written (%s): it is made again next time", path, error)
