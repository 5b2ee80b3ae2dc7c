"""Kills training with SIGKILL at random moments, resumes it, and compares with a run that nobody killed, bit by bit.

python bench/resume.py [--kills 50] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

# Everything whose resume could go wrong: batch norm in both players, a lazy penalty's phase, a schedule, several
# discriminator steps, micro-batches, and a checkpoint every other round, so that some kills hit one being written.
WORDS = [
    "train",
    "model=dcgan",
    "model.generator.width=8",
    "model.discriminator.width=8",
    "penalty=[orthogonal]",
    "penalty.orthogonal.every=4",
    "schedule=linear",
    "discriminator_steps=2",
    "accumulate=2",
    "batch_size=16",
    "total_kimg=1.6",
    "trainer=cpu",
    "metrics=none",
    "logger=csv",
    "callbacks.samples.every_kimg=0",
    "callbacks.checkpoint.every_kimg=0.064",
]

# What `python -m ganforge` does, in a process forked from one that has imported everything: its start takes a
# fraction of a second, and it is as real and as mortal as any other.
_MAIN = """
import multiprocessing, os, runpy, sys
multiprocessing.set_start_method(None, force=True)  # its own children start as a command's would
log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
sys.argv = ["ganforge", *WORDS]
runpy.run_module("ganforge", run_name="__main__", alter_sys=True)
"""


def start(words: Sequence[str], log: Path, before: str = "") -> BaseProcess:
    """Starts `ganforge WORDS` in a process of its own, which says what it has to say in `log`.

    Args:
        before: Python source that the process runs first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ganforge.commands.train", "ganforge.networks.dcgan", "sklearn.datasets"])
    names = {"WORDS": list(words), "LOG": str(log), "__name__": "start"}
    process = context.Process(target=exec, args=(before + _MAIN, names))
    process.start()
    return process


def finish(words: Sequence[str], log: Path, before: str = "") -> None:
    """Runs `ganforge WORDS` to its end; `before` as for `start`.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    process = start(words, log, before)
    process.join()
    if process.exitcode != 0:
        said = log.read_text()[-2000:]
        raise RuntimeError(f"ganforge {' '.join(words)}: exit code {process.exitcode}\n{said}")


def kill_after(seconds: float, words: Sequence[str], folder: Path, log: Path) -> float:
    """Starts `ganforge WORDS` and kills it `seconds` after its folder says what it is.

    Returns:
        How long it was alive from then on; less than `seconds` when it came to its end by itself.
    """
    process = start(words, log)
    while process.is_alive() and not (folder / "run.json").exists():
        time.sleep(0.002)
    begun = time.perf_counter()
    process.join(seconds)
    lived = time.perf_counter() - begun
    process.kill()
    process.join()
    return lived if process.exitcode == 0 else seconds


def digest(checkpoint: Path) -> str:
    """SHA-256 of every tensor and number of both players: weights, buffers, moving average, optimizers, clock."""
    state = torch.load(checkpoint, weights_only=True)
    sha = hashlib.sha256()
    for key in ("state_dict", "optimizer_states", "clock"):
        for name, value in _leaves(state[key], key):
            content = (
                value.contiguous().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode()
            )
            sha.update(name.encode() + content)
    return sha.hexdigest()


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}")
    else:
        yield name, value


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="runs to kill, at one random moment each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of training")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    moments = random.Random(arguments.seed)
    words = [*WORDS, f"seed={arguments.seed}"]
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary), Path(temporary) / "log.txt"
        finish(
            [*words, f"hydra.run.dir={folder}/first"], log
        )  # so that the second finds everything in memory
        whole = folder / "whole"
        duration = kill_after(600, [*words, f"hydra.run.dir={whole}"], whole, log)
        reference = digest(whole / "checkpoints/last.ckpt")
        assert digest(folder / "first/checkpoints/last.ckpt") == reference, (
            "the same seed gave another digest"
        )

        equal = writing = 0
        for index in track(range(arguments.kills), "killing and resuming", transient=True):
            run, moment = folder / str(index), moments.uniform(0, duration)
            while kill_after(moment, [*words, f"hydra.run.dir={run}"], run, log) < moment:
                shutil.rmtree(run)  # it was faster than the first one and is through: another moment
                moment = moments.uniform(0, duration)
            writing += (run / "checkpoints/.last.ckpt.tmp").exists()
            finish(["train", f"resume={run}"], log)
            equal += digest(run / "checkpoints/last.ckpt") == reference
            shutil.rmtree(run)
    print(f"{equal} of {arguments.kills} equal to the run that nobody killed ({reference[:12]})")
    print(f"{writing} were killed while a checkpoint was being written")
    return 0 if equal == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
