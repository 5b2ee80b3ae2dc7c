"""The jobs of a sweep as processes, one or several at a time: started, listened to, answered, and ended together."""

from __future__ import annotations

import codecs
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self, TextIO

from ganforge.commands.job_of_a_sweep import SWEEP
from ganforge.commands.signals import handling
from ganforge.commands.slurm import NOTICES, in_batch_job
from ganforge.commands.sweeps.gpus import Gpus

PROGRAM = (sys.executable, "-m", "ganforge")

# What says that a process is one of several: each job's first process starts its own.
_OF_SEVERAL = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "GANFORGE_FIRST_PROCESS", SWEEP),
)
_LOOK_SECONDS = 0.1  # a process may end without a word
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Evaluated:
    """A job has scored its run, and waits for `Jobs.answer`."""

    name: str
    images_seen: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Ended:
    """A job is over.

    Attributes:
        exit_code: 0, 2 for a mistake of the user, 1 for a run that failed, 128 and a signal's number for one that was
            stopped by it, as after a second Ctrl-C; minus the number of a signal that killed it.
        returned: what the command returned; None where it did not come so far.
        error: what went wrong, in words.
    """

    name: str
    exit_code: int
    returned: Any = None
    error: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a signal asked it to end, which it did in order."""
        return self.exit_code > 128


@dataclass
class _Job:
    name: str
    process: subprocess.Popen[bytes]
    channel: socket.socket
    gpus: list[str]
    pipes: list[int] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    unread: bytes = b""


class Jobs:
    """Processes `ganforge WORDS`, to be used as a context: signals to this process go on to all of them.

    Args:
        at_once: how many run at a time. Of several, each line that they print has the job's name in front.
        gpus: dealt out among several; a single one sees them all.
        program: what is run with a job's words; None for ganforge.
    """

    def __init__(
        self,
        at_once: int = 1,
        gpus: Gpus | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        self.at_once = at_once
        self.seen: signal.Signals | None = None
        self._gpus = gpus or Gpus()
        self._program = list(program or PROGRAM)
        self._jobs: dict[str, _Job] = {}
        self._events: deque[Evaluated | Ended] = deque()
        self._selector = selectors.DefaultSelector()
        self._handling: Any = None

    def __enter__(self) -> Self:
        numbers = {signal.SIGINT, signal.SIGTERM, *(NOTICES if in_batch_job() else ())}
        self._handling = handling(numbers, self._hand_on)
        self._handling.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._end_all()
        finally:
            self._selector.close()
            self._handling.__exit__(None, None, None)

    @property
    def busy(self) -> bool:
        """Whether a job runs, or something of one is still to be heard by `next`."""
        return bool(self._jobs or self._events)

    @property
    def free(self) -> int:
        """How many more may be started now."""
        return 0 if self.seen else self.at_once - len(self._jobs)

    def start(self, name: str, words: Sequence[str], gpus: int | None = 1, *, again: bool = False) -> int:
        """Starts `ganforge WORDS`, and returns its process id.

        Args:
            name: of this job among those that run.
            words: of the command line.
            gpus: how many it wants, None for all.
            again: whether it goes on with the run that its folder holds.
        """
        ours, theirs = socket.socketpair()
        several = self.at_once > 1
        environment = {key: value for key, value in os.environ.items() if key not in _OF_SEVERAL}
        environment[SWEEP] = f"{os.getpid()}:{theirs.fileno()}:{int(again)}"
        mine = self._gpus.take(gpus) if several else []
        if mine:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        pipe = subprocess.PIPE if several else None
        with theirs:
            process = subprocess.Popen(
                [*self._program, *words],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL if several else None,
                stdout=pipe,
                stderr=pipe,
            )
        job = self._jobs[name] = _Job(name, process, ours, mine)
        self._listen(job, ours.fileno(), lambda data: self._hear(job, data))
        for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            if source is not None:
                self._listen(job, source.fileno(), _prefixed(f"[{name}] ", target))
        if self.seen is not None:  # while it was being started
            process.send_signal(self.seen)
        return process.pid

    def next(self, within_seconds: float | None = None) -> Evaluated | Ended | None:
        """What happens next; None where nothing does in that time, where no job runs, or when a signal comes."""
        until = None if within_seconds is None else time.monotonic() + within_seconds
        seen = self.seen
        while not self._events:
            left = _LOOK_SECONDS if until is None else until - time.monotonic()
            self._look(max(0.0, min(left, _LOOK_SECONDS)))
            if not self._events and (left <= 0 or (until is None and not self._jobs) or self.seen != seen):
                return None
        return self._events.popleft()

    def answer(self, name: str, *, goes_on: bool) -> None:
        """Tells a job that has evaluated its run whether to go on."""
        if name in self._jobs:
            with _gone():
                self._jobs[name].channel.sendall((json.dumps({"goes_on": goes_on}) + "\n").encode())

    def kill(self, name: str) -> None:
        """Ends a job whose result nobody wants any more."""
        if name in self._jobs:
            self._jobs[name].process.terminate()

    def _listen(self, job: _Job, number: int, heard: Callable[[bytes], None]) -> None:
        job.pipes.append(number)
        self._selector.register(number, selectors.EVENT_READ, heard)

    def _look(self, seconds: float) -> None:
        """Reads what there is to read, and notices who has ended."""
        if not self._jobs:
            time.sleep(seconds)
        for key, _ in self._selector.select(seconds) if self._jobs else ():
            self._read(key.fd)
        for job in list(self._jobs.values()):
            if job.process.poll() is not None:
                self._conclude(job)

    def _read(self, number: int) -> bool:
        """Whether there was something."""
        data = b""
        with _gone():
            data = os.read(number, 65536)
        heard = self._selector.get_key(number).data
        heard(data)
        if not data:
            self._selector.unregister(number)
        return bool(data)

    def _hear(self, job: _Job, data: bytes) -> None:
        *lines, job.unread = (job.unread + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "scores" in said:
                self._events.append(Evaluated(job.name, said["images_seen"], said["scores"]))
            else:
                job.said |= said

    def _conclude(self, job: _Job) -> None:
        """What it left to be read is read; what its own processes go on to print is not waited for."""
        for number in job.pipes:
            while number in self._selector.get_map() and _readable(number):
                self._read(number)
            if number in self._selector.get_map():
                self._selector.get_key(number).data(b"")
                self._selector.unregister(number)
        job.channel.close()
        for pipe in (job.process.stdout, job.process.stderr):
            if pipe is not None:
                pipe.close()
        self._gpus.give_back(job.gpus)
        del self._jobs[job.name]
        code = job.process.returncode
        error = None if code == 0 else job.said.get("error")
        if code and error is None:
            if self.seen is not None:
                error, code = f"stopped by {self.seen.name} before it played", 128 + self.seen
            else:
                error = (
                    f"was killed by {signal.Signals(-code).name}"
                    if code < 0
                    else f"ended with exit code {code}"
                )
        self._events.append(Ended(job.name, code, job.said.get("returned"), error))

    def _hand_on(self, number: int, _: FrameType | None) -> None:
        """At a terminal the jobs may hear of a signal twice, and take it as one."""
        self.seen = signal.Signals(number)
        for job in self._jobs.values():
            job.process.send_signal(number)

    def _end_all(self) -> None:
        """Where the sweep itself failed, nothing of it goes on."""
        for job in self._jobs.values():
            job.process.terminate()
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._jobs:
            self._look(_LOOK_SECONDS)
            if time.monotonic() > until:
                for job in self._jobs.values():
                    job.process.kill()


@contextmanager
def _gone() -> Iterator[None]:
    """A job may be gone before it is noticed."""
    try:
        yield
    except (ConnectionError, BlockingIOError):
        return


def _readable(number: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)
        return bool(selector.select(0))


def _prefixed(prefix: str, target: TextIO) -> Callable[[bytes], None]:
    """Prints what it is given, a line at a time; the empty string ends the last one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""

    def heard(data: bytes) -> None:
        nonlocal rest
        rest += decoder.decode(data)
        *lines, rest = rest.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if not data and rest:
            lines, rest = [*lines, rest], ""
        for line in lines:
            if line:
                print(f"{prefix}{line}", file=target, flush=True)

    return heard
