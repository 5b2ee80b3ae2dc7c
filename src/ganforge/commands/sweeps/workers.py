"""A grid's jobs in the workers of joblib, or of a Ray cluster. In these, too, each job is a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn

from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.signals import handling
from ganforge.commands.sweeps.gpus import gpus_here
from ganforge.commands.sweeps.jobs import Ended, Evaluated, Jobs
from ganforge.commands.sweeps.launcher import SweepLauncher, gpus_of

_STOP = "stop"  # the file that tells joblib's workers of a signal: its number is in it
_LOOK_SECONDS = 0.2


class SweepInJoblib(SweepLauncher):
    """Jobs on this machine, in the worker processes of `joblib.Parallel`.

    Args:
        n_jobs: how many at a time; -1 for as many as there are cores.
    """

    def check(self) -> None:
        if type(self._n_jobs) is not int or self._n_jobs == 0:
            raise UserError(
                f"sweep.n_jobs={self._n_jobs}: it should be a whole number from 1 up, or -1 for all cores"
            )

    def play(self, words: dict[str, list[str]], returns: dict[str, JobReturn]) -> signal.Signals | None:
        from joblib import Parallel, delayed

        parallel = Parallel(self._n_jobs, backend="loky", return_as="generator_unordered")
        seen: list[signal.Signals] = []
        with tempfile.TemporaryDirectory(prefix="ganforge-sweep-") as folder:

            def hand_on(number: int, _: FrameType | None) -> None:
                seen.append(signal.Signals(number))
                (Path(folder) / _STOP).write_text(str(number))

            groups = _groups({name: gpus_of(returns[name]) for name in words}) if self.several else []
            jobs = (
                delayed(play_in_worker)(name, words[name], self.several, folder, groups) for name in words
            )
            with handling((signal.SIGINT, signal.SIGTERM), hand_on):
                try:
                    for ended in parallel(jobs):
                        self.conclude(ended, returns[ended.name])
                except BrokenExecutor as error:
                    raise RunFailedError(
                        "a worker of joblib was killed, and with it the sweep: ganforge train resume=FOLDER goes on "
                        "with a job that had begun"
                    ) from error
        return seen[0] if seen else None


class SweepInRay(SweepLauncher):
    """Jobs where Ray has room for them: on this machine, or on those of a cluster, which see the same folders.

    Args:
        n_jobs: is not for Ray, which plays as many at a time as its cores and GPUs allow.
        address: of a cluster, as `ray.init` takes it; None starts Ray here, for this sweep.
        cpus: cores that a job takes; GPUs are as many as its `trainer.devices`.
        settings: further ones of ray.init.
    """

    def __init__(self, n_jobs: int = 1, address: str | None = None, cpus: float = 1, **settings: Any) -> None:
        super().__init__(n_jobs)
        self._address, self._cpus, self._settings = address, cpus, settings

    @property
    def several(self) -> bool:
        """As many as there is room for."""
        return True

    def check(self) -> None:
        if self._n_jobs != 1:
            raise UserError(
                f"sweep.n_jobs={self._n_jobs}: Ray plays as many jobs at a time as there are cores and GPUs for: "
                "hydra.launcher.cpus=2 has each take two cores"
            )
        if not isinstance(self._cpus, int | float) or self._cpus < 0:
            raise UserError(f"hydra.launcher.cpus={self._cpus}: it should be a number from 0 up")

    def play(self, words: dict[str, list[str]], returns: dict[str, JobReturn]) -> signal.Signals | None:
        ray = _ray()
        own = {} if self._address else {"include_dashboard": False}
        try:
            ray.init(address=self._address, logging_level="warning", **{**own, **self._settings})
        except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
            where = f"hydra.launcher.address={self._address}" if self._address else "hydra/launcher=ray"
            raise UserError(f"{where}: {error}") from error
        seen: list[signal.Signals] = []
        try:
            there_are = ray.cluster_resources()
            task = ray.remote(max_retries=0, max_calls=1)(play_in_worker)
            waiting: dict[Any, str] = {}
            for name in words:
                gpus = gpus_of(returns[name])
                gpus = min(1 if gpus is None else gpus, int(there_are.get("GPU", 0)))
                wanted = {"num_cpus": self._cpus, "num_gpus": gpus}
                waiting[task.options(**wanted).remote(name, words[name])] = name

            def note(number: int, _: FrameType | None) -> None:
                seen.append(signal.Signals(number))

            told = 0
            with handling((signal.SIGINT, signal.SIGTERM), note):
                while waiting:
                    if len(seen) > told:
                        told = len(seen)
                        for each in waiting:
                            ray.cancel(each)
                    for each in ray.wait(list(waiting), timeout=_LOOK_SECONDS)[0]:
                        name = waiting.pop(each)
                        self.conclude(_got(ray, each, name, seen), returns[name])
        finally:
            ray.shutdown()
        return seen[0] if seen else None


def play_in_worker(
    name: str, words: Sequence[str], prefixed: bool = True, folder: str = "", groups: Sequence[str] = ()
) -> Ended:
    """Runs one job, and says how it ended.

    Args:
        name: of the job, which is in front of the lines that it prints where `prefixed`.
        words: of the command line.
        folder: where word is left when the sweep is stopped, and which group of GPUs is taken.
        groups: each as in CUDA_VISIBLE_DEVICES, for a job each; none where others deal them out.
    """
    stop = Path(folder) / _STOP if folder else None
    told = contextlib.nullcontext() if stop else _cancelled_by_ray()
    with Jobs(2 if prefixed else 1) as jobs, told, _one_of(groups, Path(folder), name):
        if stop is not None and stop.exists():
            number = _signal_in(stop)
            return Ended(name, 128 + number, None, f"stopped by {number.name} before it played")
        jobs.start(name, words)
        while True:
            event = jobs.next(_LOOK_SECONDS)
            if isinstance(event, Evaluated):
                jobs.answer(name, goes_on=True)
            elif isinstance(event, Ended):
                return event
            if stop is not None and stop.exists() and jobs.seen is None:
                signal.raise_signal(_signal_in(stop))


@contextmanager
def _cancelled_by_ray() -> Iterator[None]:
    """Ray's word for it is SIGINT, which a job does not hear that was started where SIGINT is ignored, as by nohup."""
    with handling([signal.SIGINT], lambda *_: signal.raise_signal(signal.SIGTERM)):
        yield


def _signal_in(file: Path) -> signal.Signals:
    """What is written there; the number may not be there yet."""
    return signal.Signals(int(file.read_text() or signal.SIGTERM))


def _groups(wanted: dict[str, int | None]) -> list[str]:
    """The GPUs of this machine in groups that are large enough for every job."""
    names = gpus_here().names
    size = max((len(names) if number is None else number for number in wanted.values()), default=1)
    size = max(1, min(size, len(names)))
    return [",".join(names[first : first + size]) for first in range(0, len(names) - size + 1, size)]


@contextmanager
def _one_of(groups: Sequence[str], folder: Path, name: str) -> Iterator[None]:
    """Shows this process, and what it starts, a group of GPUs that no other job has, or one that is shared."""
    if not groups:
        yield
        return
    lock = None
    for group in groups:
        lock = FileLock(folder / f"gpus_{group}")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            lock = None
        else:
            break
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = group if lock else groups[int(name) % len(groups)]
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        if lock:
            lock.release()


def _ray() -> Any:
    # Nothing leaves the computer by itself, and every line of every job is shown.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX"):
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("hydra/launcher=ray needs Ray: pip install 'ganforge[ray]'") from error
    return ray


def _got(ray: Any, task: Any, name: str, seen: Sequence[signal.Signals]) -> Ended:
    try:
        ended: Ended = ray.get(task)
        return ended
    except ray.exceptions.TaskCancelledError:
        number = seen[0] if seen else signal.SIGTERM
        return Ended(name, 128 + number, None, f"stopped by {number.name} before it played")
    except ray.exceptions.RayError as error:
        return Ended(name, 1, None, f"Ray lost it: {str(error).strip().splitlines()[-1]}")
