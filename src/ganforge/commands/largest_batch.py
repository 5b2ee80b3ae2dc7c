"""The largest batch size that fits: tried in processes of their own, whose peak memory grows with it in a line."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ganforge.commands.errors import UserError

log = logging.getLogger("ganforge")

_SHARE = 0.9  # of what is free; other programs want some, and memory is never packed without gaps
_PATIENCE_SECONDS = 120.0  # for one trial
_PRECISION = 0.05  # of the largest batch size, where a trial did not fit
_MOST_TRIALS = 16
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")


@dataclass
class Trial:
    """One batch size tried.

    Attributes:
        peak: bytes of the process, or of the device; None where it did not fit.
        seconds: that it took, with the start.
        too_slow: whether it was given up before its end.
    """

    batch_size: int
    peak: int | None
    seconds: float
    too_slow: bool = False


def find_largest_batch(batch_size: int, step: int, out: Path, *, on_device: bool) -> dict[str, Any]:
    """The largest multiple of `step` that fits into 90% of the free memory, and how it was found.

    Raises:
        UserError: not even `batch_size` does.
    """
    limit = free_on_device() if on_device else free_memory()
    trials = search(lambda size: _try(size, out, limit, on_device=on_device), batch_size, step, limit)
    fits = [trial for trial in trials if _fits(trial, limit)]
    if not fits:
        raise UserError(
            f"batch_size={batch_size} does not fit into {_gb(limit)} GB, 90% of the free memory: accumulate=2 and "
            "more needs less"
        )
    best = max(fits, key=lambda trial: trial.batch_size)
    assert best.peak is not None
    tried = ", ".join(f"{trial.batch_size}: {_outcome(trial)}" for trial in trials)
    said = f"largest batch_size: {best.batch_size} takes {_gb(best.peak)} of {_gb(limit)} GB, 90% of the free memory"
    estimate = _estimate(fits, step, limit) if len(trials) == len(fits) or trials[-1].too_slow else None
    if estimate and estimate > best.batch_size:
        said += f"; about {estimate} would fit, by the line through the trials, but would take minutes to try"
    return {
        "batch_size": best.batch_size,
        "limit_bytes": limit,
        "estimate": estimate,
        "trials": [vars(trial) for trial in trials],
        "said": f"{said} (tried {tried})",
    }


def search(measure: Callable[[int], Trial], batch_size: int, step: int, limit: int) -> list[Trial]:
    """The trials, in order; the largest that fits is the answer.

    From `batch_size` on where the line through the last two meets the limit, but at most four times as large each time:
    small batches hide below what the start alone takes. Then what lies below the smallest that does not fit is halved.
    Nothing is tried that would take too long.
    """
    trials = [measure(batch_size)]
    while _fits(trials[-1], limit):
        last = trials[-1].batch_size
        guess = min(_estimate(trials, step, limit), 4 * last)
        if guess <= (1 + _PRECISION) * last or _would_take(trials, guess) > _PATIENCE_SECONDS:
            return trials
        trials.append(measure(guess))
    nearly = True  # what the line named and did not fit is a little too large
    while not trials[-1].too_slow and len(trials) < _MOST_TRIALS:
        low = max((t.batch_size for t in trials if _fits(t, limit)), default=0)
        high = min(t.batch_size for t in trials if not _fits(t, limit))
        middle = (int(0.93 * high) if nearly else (low + high) // 2) // step * step
        if high - low <= max(step, _PRECISION * high):
            break
        nearly = False
        if middle > low:
            trials.append(measure(middle))
        elif (low + high) // 2 // step * step <= low:
            break
    return trials


def _fits(trial: Trial, limit: int) -> bool:
    return trial.peak is not None and trial.peak <= limit


def _would_take(trials: list[Trial], batch_size: int) -> float:
    """Seconds that a trial would take, by the line through the last two."""
    if len(trials) < 2:
        return 0.0
    before, last = trials[-2:]
    slope = max(last.seconds - before.seconds, 0.0) / (last.batch_size - before.batch_size)
    return last.seconds + slope * (batch_size - last.batch_size)


def _estimate(trials: list[Trial], step: int, limit: int) -> int:
    """The batch size at which the line through the two largest that fit meets the limit."""
    fits = sorted((t.batch_size, t.peak) for t in trials if t.peak is not None)[-2:]
    (small, little), (large, much) = fits[0], fits[-1]
    if much <= little:  # no line yet
        return 4 * large
    return int(large + (limit - much) * (large - small) / (much - little)) // step * step


def _outcome(trial: Trial) -> str:
    if trial.peak is not None:
        return f"{_gb(trial.peak)} GB"
    return "too slow" if trial.too_slow else "too large"


def _try(batch_size: int, out: Path, limit: int, *, on_device: bool) -> Trial:
    """This command line with another batch size, for two rounds in a process of its own."""
    dropped = ("batch_size=", "largest_batch=", "only=", "out=", "warmup=", "rounds=")
    words = [word for word in sys.argv[1:] if not word.startswith(dropped)]
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=out) as folder:
        own = [f"batch_size={batch_size}", "only=memory", "warmup=2", f"out={Path(folder).absolute()}"]
        command = [sys.executable, "-m", "ganforge", *words, *own]
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            end = _watch(child, start + _PATIENCE_SECONDS, None if on_device else limit)
        finally:
            if child.poll() is None:
                child.kill()
            errors = child.communicate()[1].decode(errors="replace")
        if end == "slow":
            return Trial(batch_size, None, _PATIENCE_SECONDS, too_slow=True)
        seconds = time.monotonic() - start
        if child.returncode == 0 and end is None:
            memory = json.loads((Path(folder) / "profile.json").read_text())["memory"]
            key = "device_peak_bytes" if on_device else "process_peak_bytes"
            return Trial(batch_size, int(memory[key]), seconds)
    killed = child.returncode < 0 or end == "large"
    if not (killed or any(words in errors for words in _OUT_OF_MEMORY)):
        raise UserError(
            f"batch_size={batch_size}: {errors.strip().splitlines()[-1] if errors.strip() else '?'}"
        )
    return Trial(batch_size, None, seconds)


def _watch(child: subprocess.Popen[bytes], until: float, limit: int | None) -> str | None:
    """Waits for the child's end; says `slow` or `large` where it was killed for that."""
    while child.poll() is None:
        if time.monotonic() > until:
            child.kill()
            return "slow"
        if limit is not None and _resident(child.pid) > limit:
            child.kill()
            return "large"
        time.sleep(0.05)
    return None


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def free_memory() -> int:
    """Bytes that may be used: 90% of what is free, within the limit that a container may have."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    groups = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    )
    for limit, used in groups:
        values = [*_lines(limit)[:1], *_lines(used)[:1]]
        if len(values) == 2 and all(value.isdigit() for value in values):
            free = min(free, int(values[0]) - int(values[1]))
    return int(_SHARE * free)


def free_on_device() -> int:
    """Bytes of the device: 90% of what is free once this process has given back what it keeps."""
    torch.cuda.empty_cache()
    return int(_SHARE * torch.cuda.mem_get_info()[0])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().split("\n")
    except OSError:
        return []


def _gb(count: float) -> str:
    return f"{count / 2**30:.2f}"
