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
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from ganforge.commands.errors import RunFailedError, UserError
from ganforge.evaluation.ranks import Ranks

log = logging.getLogger("ganforge")

_HOST = "127.0.0.1"
_DAY = 24 * 3600.0
_PARENT = "GANFORGE_FIRST_PROCESS"  # its process id, for those that it started
_TIMEOUT_KEY, _HERE_KEY = "ganforge/timeout_seconds", "ganforge/here"
_PATIENCE_SECONDS = 1.0


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

    def take_gpu(self) -> None:
        """Makes `cuda` another GPU for each process of this machine, as far as there are several."""
        if self.ranks.size > 1:
            place = int(os.environ.get("LOCAL_RANK", self.ranks.rank))
            torch.cuda.set_device(place % torch.cuda.device_count())

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
                    return f"process {rank} of {self.ranks.size} {how}"
            if not self._others or time.monotonic() >= until:
                return None
            time.sleep(0.05)


def _say(who: str) -> None:
    print(f"ganforge: {who}", file=sys.stderr)


@contextlib.contextmanager
def sharing(
    processes: int,
    words: Sequence[str] | None = None,
    *,
    timeout_seconds: float = _DAY,
    grace_seconds: float = _PATIENCE_SECONDS,
    on_death: Callable[[str], None] = _say,
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
        RunFailedError: another process died, and this one noticed by itself.
    """
    if processes < 1:
        raise UserError(f"processes={processes} must be at least 1")
    started = started_by_torchrun()
    if processes == 1 and started == 1:
        yield Team(Ranks())
        return
    done = threading.Event()
    others: list[subprocess.Popen[bytes]] = []
    team = Team(Ranks(int(os.environ["RANK"]), started) if started > 1 else Ranks(0, processes), others)
    threads = torch.get_num_threads()
    try:
        if started > 1:
            threading.Thread(target=_end_with_the_starter, daemon=True).start()
            store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=_DAY)))
        else:
            watching = (team, done, grace_seconds, on_death)
            threading.Thread(target=_watch, args=watching, daemon=True).start()
            store = _start(others, processes, sys.argv[1:] if words is None else words)
        _meet(store, team.ranks, timeout_seconds)
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", processes))))
        if team.ranks.rank:
            log.setLevel(logging.CRITICAL)
        yield team
        done.set()
        dist.barrier()
    except UserError:
        if team.ranks.rank:
            time.sleep(_PATIENCE_SECONDS)  # the first rank says it too, and ends this process
        raise
    except RuntimeError as error:
        if who := team.who_died(within_seconds=_PATIENCE_SECONDS):
            raise RunFailedError(who) from error
        raise
    finally:
        done.set()
        _end(others, at_once=sys.exc_info()[0] is not None)
        torch.set_num_threads(threads)
        if dist.is_initialized():
            dist.destroy_process_group()


def _meet(store: Any, ranks: Ranks, timeout_seconds: float) -> None:
    """Joins the process group, once all are here. A start takes its time: the clock of messages runs from there."""
    if ranks.rank == 0:
        store.set(_TIMEOUT_KEY, str(timeout_seconds))
    store.set(f"{_HERE_KEY}/{ranks.rank}", "")
    while not store.check([f"{_HERE_KEY}/{other}" for other in range(ranks.size)]):
        time.sleep(0.05)
    timeout = timedelta(seconds=float(store.get(_TIMEOUT_KEY)))
    dist.init_process_group(_backend(), store=store, rank=ranks.rank, world_size=ranks.size, timeout=timeout)


def _backend() -> str:
    """gloo for what lies on the CPU, also where there are GPUs: messages about the run wait for no device."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def _start(others: list[subprocess.Popen[bytes]], processes: int, words: Sequence[str]) -> Any:
    """Starts `ganforge WORDS` for every process beside this one, kept in `others`; returns what they meet in."""
    store = dist.TCPStore(  # type: ignore[attr-defined]
        _HOST, 0, processes, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=_DAY)
    )
    common = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store runs already: rank 0 need not open one
        _PARENT: str(os.getpid()),
    }
    command = [sys.executable, "-m", "ganforge", *words]
    for rank in range(1, processes):
        environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        others.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    return store


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


def _end_with_the_starter() -> None:
    """Ends this process, in a moment, when the one that started it is gone, however that one ended."""
    starter = int(os.environ.get(_PARENT, os.getppid()))
    while os.getppid() == starter:
        time.sleep(0.5)
    os._exit(1)
