"""A command that several processes share: started here, or by torchrun."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.rendezvous import rendezvous

from ganforge.commands.errors import UserError
from ganforge.evaluation.ranks import Ranks

log = logging.getLogger("ganforge")

_HOST = "127.0.0.1"
_DAY = 24 * 3600.0
_PARENT = "GANFORGE_FIRST_PROCESS"  # its process id, for those that it started
_TIMEOUT_KEY, _HERE_KEY = "ganforge/timeout_seconds", "ganforge/here"


def started_by_torchrun() -> int:
    """How many processes torchrun, or what sets the same variables, has started; 1 when none was."""
    return int(os.environ["WORLD_SIZE"]) if "WORLD_SIZE" in os.environ and "RANK" in os.environ else 1


def comes_after_the_first() -> bool:
    """Whether this is one of several processes, and another one is the first."""
    return started_by_torchrun() > 1 and os.environ["RANK"] != "0"


class Team:
    """This process among those that share a command.

    Attributes:
        ranks: its place.
    """

    def __init__(self, ranks: Ranks, others: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        self.ranks = ranks
        self._others = others

    def who_died(self, within_seconds: float = 0.0) -> str | None:
        """How one of those that this process started came to a bad end, in words; None where none did."""
        until = time.monotonic() + within_seconds
        while True:
            for rank, other in enumerate(self._others, start=1):
                code = other.poll()
                if code:
                    how = (
                        f"was killed by {signal.Signals(-code).name}"
                        if code < 0
                        else f"ended with exit code {code}"
                    )
                    return f"process {rank} of {len(self._others) + 1} {how}"
            if not self._others or time.monotonic() >= until:
                return None
            time.sleep(0.05)


def _nothing_was_written(who: str) -> None:
    print(f"ganforge: {who}; nothing was written", file=sys.stderr)


@contextlib.contextmanager
def sharing(
    processes: int,
    words: Sequence[str] | None = None,
    *,
    timeout_seconds: float = _DAY,
    grace_seconds: float = 1.0,
    on_death: Callable[[str], None] = _nothing_was_written,
) -> Iterator[Team]:
    """This process among `processes`; those beside the first print nothing.

    Under torchrun, which has started them already, `processes` may stay 1.

    Args:
        processes: how many.
        words: of the command line of the others; None for that of this process.
        timeout_seconds: how long one waits for another that is alive; the first process says it to the others.
        grace_seconds: how long this process has to come to its own end when another died, before it is ended.
        on_death: what is said, or noted, when it is ended.

    Raises:
        UserError: a number that makes no sense.
    """
    if processes < 1:
        raise UserError(f"processes={processes} must be at least 1")
    if processes == 1 and started_by_torchrun() == 1:
        yield Team(Ranks())
        return
    done = threading.Event()
    others: list[subprocess.Popen[bytes]] = []
    threads = torch.get_num_threads()
    try:
        if started_by_torchrun() > 1:
            _end_with_the_first()
            store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=_DAY)))
        else:
            rank, size = 0, processes
            store = TCPStore(
                _HOST, 0, size, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=_DAY)
            )
            others = _start(processes, store.port, sys.argv[1:] if words is None else words)
        team = Team(Ranks(rank, size), others)
        if others:
            watch = threading.Thread(target=_watch, args=(team, done, grace_seconds, on_death), daemon=True)
            watch.start()
        if rank == 0:
            store.set(_TIMEOUT_KEY, str(timeout_seconds))
        # A start takes its time: the clock runs from when all are here.
        store.set(f"{_HERE_KEY}/{rank}", "")
        store.wait([f"{_HERE_KEY}/{other}" for other in range(size)], timedelta(seconds=_DAY))
        timeout = timedelta(seconds=float(store.get(_TIMEOUT_KEY)))
        dist.init_process_group(_backend(), store=store, rank=rank, world_size=size, timeout=timeout)
        torch.set_num_threads(max(1, threads // size))
        if rank:
            log.setLevel(logging.CRITICAL)
        yield team
        done.set()
        dist.barrier()
    finally:
        done.set()
        _end(others, at_once=sys.exc_info()[0] is not None)
        torch.set_num_threads(threads)
        if dist.is_initialized():
            dist.destroy_process_group()


def _backend() -> str:
    """gloo for what lies on the CPU, also where there are GPUs: messages about the run wait for no device."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def _start(processes: int, port: int, words: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    """Starts `ganforge WORDS` for every process beside this one."""
    common = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store runs already: rank 0 need not open one
        _PARENT: str(os.getpid()),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "ganforge", *words],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(1, processes)
    ]


def _end(others: Sequence[subprocess.Popen[bytes]], *, at_once: bool) -> None:
    """Waits for the others; one that does not end by itself, or when told to, is killed."""
    if at_once:
        for other in others:
            other.terminate()
    until = time.monotonic() + (5 if at_once else 60)
    for other in others:
        try:
            other.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


def _watch(team: Team, done: threading.Event, grace_seconds: float, on_death: Callable[[str], None]) -> None:
    """Ends this process when another dies: it might wait for ever for what that one was to give."""
    while not done.wait(0.5):
        who = team.who_died()
        # What all processes meet is said by this one; where it waits for the dead, it mostly notices by itself.
        if who and not done.wait(grace_seconds):
            for other in team._others:
                other.kill()
            on_death(who)
            os._exit(1)


def _end_with_the_first() -> None:
    """Ends this process, in a moment, when the one that started it is no more: nobody else would."""
    parent = int(os.environ.get(_PARENT, 0))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if parent:
        threading.Thread(target=watch, daemon=True).start()
