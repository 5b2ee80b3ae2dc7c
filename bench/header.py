"""What every bench says first: versions, machine, threads and seed, without which a figure means little."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from ganforge.commands.profile import device_name


def header(*, seed: int | str) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ganforge", "torch", "lightning"))
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return (
        f"{versions}, Python {platform.python_version()}; {device}, {torch.get_num_threads()} of {os.cpu_count()} "
        f"threads, load {os.getloadavg()[0]:.1f} at the start; seed {seed}."
    )
