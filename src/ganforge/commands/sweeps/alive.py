"""Which process this is, among those of all machines, and whether another one still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def machine() -> str:
    """Names the place where a process id means what it means here: this start of this machine, or of a container."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def process(number: int | None = None) -> str:
    """`NUMBER:START`: a later process of the same number has another start."""
    number = os.getpid() if number is None else number
    return f"{number}:{_start(number)}"


def lives(name: str) -> bool:
    """Whether the process that `process` named on this machine is still there."""
    number, start = name.split(":")
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _start(int(number)) == start


def _start(number: int) -> str:
    """When the process began, in ticks since the machine did; empty where that is not known, or it is no more."""
    try:
        words = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] == "Z" else words[19]
