"""A command that several processes share: started here, by torchrun, or by srun."""

from __future__ import annotations

import contextlib
import logging
import os
import re
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
from ganforge.commands.signs_of_life import SignsOfLife
from ganforge.commands.started import comes_after_the_first, started_together
from ganforge.evaluation.ranks import Ranks

log = logging.getLogger("ganforge")

_HOST = "127.0.0.1"
_DAY = 24 * 3600.0
_PARENT = "GANFORGE_FIRST_PROCESS"  # its process id, for those that it started
_TIMEOUT_KEY, _HERE_KEY = "ganforge/timeout_seconds", "ganforge/here"
_FIRST_KEY, _OVER_KEY, _LEFT_KEY = "ganforge/first", "ganforge/over", "ganforge/left"
_PATIENCE_SECONDS = 1.0
_START_SECONDS = 600.0
_leads_in: Any = None  # the store of a first process that has not met the others yet


class NothingToDoError(Exception):
    """The first process came to its end without the others, and has said why."""


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """Around what the first of several started processes does: the others end where they turn out not to be needed."""
    global _leads_in
    if started_together() == 1 or comes_after_the_first() or _leads_in is not None:
        yield
        return
    store = _leads_in = _rendezvous()
    try:
        yield
    finally:
        if _leads_in is not None:
            _leads_in = None
            store.set(_OVER_KEY, "")
            until = time.monotonic() + _START_SECONDS / 10  # the store may end with this process
            while store.add(_LEFT_KEY, 0) < started_together() - 1 and time.monotonic() < until:
                time.sleep(0.05)


def _rendezvous() -> Any:
    """The store of processes that something else has started."""
    where = f"MASTER_ADDR={os.environ.get('MASTER_ADDR')} MASTER_PORT={os.environ.get('MASTER_PORT')}"
    way_out = "set them to what all processes can use"
    try:
        store = _of_this_run(next(rendezvous("env://", timeout=timedelta(seconds=_START_SECONDS)))[0])
        if comes_after_the_first():
            store.wait([_FIRST_KEY], timedelta(seconds=_START_SECONDS))
        else:
            store.set(_FIRST_KEY, "")
        return store
    except dist.DistStoreError as error:
        raise UserError(f"{where} is another run's: {way_out}") from error
    except dist.DistNetworkError as error:
        what = "is another process's" if "EADDRINUSE" in str(error) else "is where no first process is"
        raise UserError(f"{where} {what}: {way_out}") from error


def _of_this_run(store: Any) -> Any:
    """The part of a store that no other run, and no earlier start of this one, writes to."""
    names = (
        *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
        *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_LAUNCHER_PORT"),
    )
    return dist.PrefixStore("/".join(os.environ.get(name, "") for name in names), store)  # type: ignore[attr-defined]


class Team:
    """This process among those that share a command.

    Attributes:
        ranks: its place.
        others: those that this process has started.
        signs: of those that it has met; None before.
        limit: how long one waits for another, as it is set.
    """

    def __init__(self, ranks: Ranks, limit: str = "") -> None:
        self.ranks = ranks
        self.others: list[subprocess.Popen[bytes]] = []
        self.signs: SignsOfLife | None = None
        self.limit = limit

    def take_gpu(self) -> None:
        """Makes `cuda` another GPU for each process of this machine, as far as there are several."""
        if self.ranks.size > 1:
            place = int(os.environ.get("LOCAL_RANK", self.ranks.rank))
            torch.cuda.set_device(place % torch.cuda.device_count())

    def lost(self) -> str | None:
        """Which of the others is no more, or as good as that, in words; None while all live."""
        silent = self.signs.silent() if self.signs else None
        return self._dead() or (f"{silent} gave no sign of life for {self.limit}" if silent else None)

    def why(self, error: RuntimeError) -> str | None:
        """What a message between processes that failed says of one of them; None where the error is another one."""
        missing = self.signs.missing if self.signs else lambda: None
        if re.search(r"[Tt]imed out|[Tt]imeout", str(error)):
            # Not those who died: they may have waited in vain as this one did, and only ended before it.
            return f"{missing() or 'another process'} kept the others waiting for {self.limit}"
        if re.search(r"onnection (was )?(closed|reset)|roken pipe|NCCL", str(error)):
            return self._dead(within_seconds=5) or f"{missing() or 'another process'} ended before the others"
        return None

    def _dead(self, within_seconds: float = 0.0) -> str | None:
        until = time.monotonic() + within_seconds
        while True:
            for rank, other in enumerate(self.others, start=1):
                code = other.poll()
                if code:
                    how = (
                        f"was killed by {signal.Signals(-code).name}"
                        if code < 0
                        else f"ended with exit code {code}"
                    )
                    return f"process {rank} of {self.ranks.size} {how}"
            if not self.others or time.monotonic() >= until:
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
    timeout_setting: str = "a limit in seconds",
    grace_seconds: float = _PATIENCE_SECONDS,
    on_death: Callable[[str], None] = _say,
) -> Iterator[Team]:
    """This process among `processes`; those beside the first print nothing.

    Under torchrun or srun, which have started them already, `processes` may stay 1.

    Args:
        processes: how many.
        words: of the command line of the others; None for that of this process.
        timeout_seconds: how long one waits for another; the first process says it to the others.
        timeout_setting: where that is set.
        grace_seconds: how long this process has to come to its own end when another died, before it is ended.
        on_death: what is said, or noted, when it is ended.

    Raises:
        UserError: a number that makes no sense.
        NothingToDoError: the first process has ended without the others.
        RunFailedError: another process died, and this one noticed by itself.
    """
    if processes < 1:
        raise UserError(f"processes={processes} must be at least 1")
    started = started_together()
    if processes == 1 and started == 1:
        yield Team(Ranks())
        return
    done = threading.Event()
    ranks = Ranks(int(os.environ["RANK"]), started) if started > 1 else Ranks(0, processes)
    team = Team(ranks, f"{timeout_setting}={timeout_seconds:g}")
    threads = torch.get_num_threads()
    try:
        if ranks.rank == 0:
            watching = (team, done, grace_seconds, on_death)
            threading.Thread(target=_watch, args=watching, daemon=True).start()
        store = _store_of(team, started, sys.argv[1:] if words is None else words)
        _meet(store, team, timeout_seconds)
        torch.set_num_threads(_share_of(threads, processes))
        if ranks.rank:
            log.setLevel(logging.CRITICAL)
        yield team
        done.set()
        dist.barrier()
    except UserError:
        if ranks.rank:
            time.sleep(_PATIENCE_SECONDS)  # the first rank says it too, and ends this process
        raise
    except RuntimeError as error:
        if who := team.why(error):
            raise RunFailedError(who) from error
        raise
    finally:
        done.set()
        if team.signs:
            team.signs.stop()
        _end(team.others, at_once=sys.exc_info()[0] is not None)
        torch.set_num_threads(threads)
        if dist.is_initialized():
            dist.destroy_process_group()


def _store_of(team: Team, started: int, words: Sequence[str]) -> Any:
    """What all processes meet in; where nothing else has started the others, this one starts them."""
    if started > 1:
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
        return _leads_in or _rendezvous()
    opened = _open_store(team.ranks.size)
    store = _of_this_run(opened)
    store.set(_FIRST_KEY, "")
    _start(team.others, opened.port, team.ranks.size, words)
    return store


def _meet(store: Any, team: Team, timeout_seconds: float) -> None:
    """Joins the process group once all are here, as a start takes its time, and gives signs of life from then on.

    How long to wait for another, and where that is set, is the first process's.
    """
    global _leads_in
    _leads_in = None
    ranks = team.ranks
    if ranks.rank == 0:
        store.set(_TIMEOUT_KEY, f"{timeout_seconds} {team.limit}")
    store.set(f"{_HERE_KEY}/{ranks.rank}", "")
    while not store.check([f"{_HERE_KEY}/{other}" for other in range(ranks.size)]):
        if store.check([_OVER_KEY]):
            store.add(_LEFT_KEY, 1)
            raise NothingToDoError
        time.sleep(0.05)
    seconds, team.limit = store.get(_TIMEOUT_KEY).decode().split(" ", 1)
    timeout = timedelta(seconds=float(seconds))
    dist.init_process_group(_backend(), store=store, rank=ranks.rank, world_size=ranks.size, timeout=timeout)
    team.signs = SignsOfLife(store, ranks, float(seconds))
    team.signs.start()


def _share_of(threads: int, processes: int) -> int:
    """How many of this machine's threads this process takes."""
    if "SLURM_STEP_ID" in os.environ and "SLURM_CPUS_PER_TASK" in os.environ:
        return min(threads, int(os.environ["SLURM_CPUS_PER_TASK"]))
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))


def _backend() -> str:
    """gloo for what lies on the CPU, also where there are GPUs: messages about the run wait for no device."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def _open_store(processes: int) -> Any:
    """What the processes of this machine meet in."""
    timeout = timedelta(seconds=_DAY)
    return dist.TCPStore(  # type: ignore[attr-defined]
        _HOST, 0, processes, is_master=True, wait_for_workers=False, timeout=timeout
    )


def _start(others: list[subprocess.Popen[bytes]], port: int, processes: int, words: Sequence[str]) -> None:
    """Starts `ganforge WORDS` for every process beside this one, kept in `others`."""
    common = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store runs already: rank 0 need not open one
        _PARENT: str(os.getpid()),
    }
    command = [sys.executable, "-m", "ganforge", *words]
    for rank in range(1, processes):
        environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        others.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))


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
    """Ends this process when another is lost: it might wait for ever for what that one was to give."""
    while not done.wait(0.5):
        who = team.lost()
        # What all processes meet is said by this one; where it waits for the dead, it mostly notices by itself.
        if who and not done.wait(grace_seconds):
            for other in team.others:
                other.kill()
            on_death(who)
            os._exit(1)


def end_a_starter_that_hangs(within_seconds: float, on_end: Callable[[], None]) -> None:
    """Kills the process that started this one, and would have ended it by now if it still did anything."""
    starter = int(os.environ.get(_PARENT, 0))
    until = time.monotonic() + within_seconds
    while starter and os.getppid() == starter:
        if time.monotonic() >= until:
            on_end()
            os.kill(starter, signal.SIGKILL)
            return
        time.sleep(0.5)


def _end_with_the_starter() -> None:
    """Ends this process, in a moment, when the one that started it is gone, however that one ended."""
    starter = int(os.environ.get(_PARENT, os.getppid()))
    while os.getppid() == starter:
        time.sleep(0.5)
    os._exit(1)
