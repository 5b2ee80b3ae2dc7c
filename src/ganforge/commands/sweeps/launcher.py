"""`-m` for train and profile: each job in a process of its own, so that nothing of one is left for the next.

Weights & Biases, CUDA's memory, PyTorch's global settings and the processes of several devices end with their job.
"""

from __future__ import annotations

import logging
import os
import signal
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ganforge.commands.configuration import PastHydra
from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.run_folder import quoted
from ganforge.commands.started import started_together
from ganforge.commands.sweeps.gpus import gpus_here, wanted_by
from ganforge.commands.sweeps.jobs import Ended, Evaluated, Jobs

log = logging.getLogger("ganforge")

_OF_THE_SWEEP = (
    "hydra.mode",
    "hydra.run",
    "hydra.sweep",  # and hydra.sweeper
    "hydra.searchpath",
    "hydra.launcher",
    "hydra/launcher",
    "hydra/sweeper",
)


class SweepLauncher(Launcher):
    """Runs `ganforge COMMAND OVERRIDES hydra.run.dir=FOLDER` for every job of a sweep; where and when, others say.

    Args:
        n_jobs: how many at a time.
    """

    def __init__(self, n_jobs: int = 1) -> None:
        self._n_jobs = n_jobs

    @property
    def several(self) -> bool:
        """Whether more than one may run at a time."""
        return self._n_jobs != 1

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._hydra, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """
        Raises:
            PastHydra: what cannot be swept; or a signal stopped a job, and with it the sweep.
        """
        try:
            refuse_what_cannot_be_swept(job_overrides[0])
            self.check()
            return self._launch(job_overrides, initial_job_idx)
        except (UserError, RunFailedError) as error:
            raise PastHydra(error) from error

    def _launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        returns: dict[str, JobReturn] = {}
        words: dict[str, list[str]] = {}
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            returns[str(number)] = self._job(number, list(overrides))
            words[str(number)] = words_of_job(
                self._config, number, overrides, self._folder(returns[str(number)])
            )
        self._stopped: Ended | None = None
        seen = self.play(words, returns)
        if self._stopped is not None:
            several = f"the sweep is stopped by {seen.name}" if seen and self.several else None
            raise RunFailedError(
                several or str(self._stopped.error), 128 + seen if seen else self._stopped.exit_code
            )
        return list(returns.values())

    def check(self) -> None:
        """
        Raises:
            UserError: a setting of the launcher that cannot be.
        """
        check_n_jobs(self._n_jobs)

    @abstractmethod
    def play(self, words: dict[str, list[str]], returns: dict[str, JobReturn]) -> signal.Signals | None:
        """Runs all jobs, by their names, and hands each one's end to `conclude`; which signal stopped them, if any."""

    def conclude(self, ended: Ended, job: JobReturn) -> None:
        """Takes down what became of a job."""
        if ended.stopped:
            if self.several:
                log.error("job %s: %s", ended.name, ended.error)
            self._stopped = self._stopped or ended
        elif ended.error is not None:
            log.error("job %s: %s", ended.name, ended.error)
            failure = UserError if ended.exit_code == 2 else RunFailedError
            job.return_value, job.status = failure(ended.error), JobStatus.FAILED
        else:
            job.return_value, job.status = ended.returned, JobStatus.COMPLETED

    def _job(self, number: int, overrides: list[str]) -> JobReturn:
        config = self._hydra.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        command = config.hydra.job.config_name
        return JobReturn(overrides=overrides, hydra_cfg=config, working_dir=os.getcwd(), task_name=command)

    def _folder(self, job: JobReturn) -> Path:
        config = job.hydra_cfg
        assert isinstance(config, DictConfig)
        of_the_sweep = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # a folder's name may ask for it
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        HydraConfig.instance().cfg = of_the_sweep
        return folder


class SweepInProcesses(SweepLauncher):
    """Jobs on this machine, which this process starts. Of several each gets its share of the GPUs."""

    def play(self, words: dict[str, list[str]], returns: dict[str, JobReturn]) -> signal.Signals | None:
        """Where one was stopped by a signal no other is started."""
        waiting = list(words)
        with Jobs(self._n_jobs, gpus_here() if self.several else None) as jobs:
            while jobs.busy or (waiting and self._stopped is None and not jobs.seen):
                while waiting and jobs.free and self._stopped is None:
                    name = waiting.pop(0)
                    jobs.start(name, words[name], gpus_of(returns[name]))
                event = jobs.next()
                if isinstance(event, Evaluated):
                    jobs.answer(event.name, goes_on=True)
                elif isinstance(event, Ended):
                    self.conclude(event, returns[event.name])
        return jobs.seen


def gpus_of(job: JobReturn) -> int | None:
    """How many GPUs a job asks for: see wanted_by."""
    return wanted_by(OmegaConf.select(job.hydra_cfg, "trainer") or {})  # type: ignore[arg-type]


def refuse_what_cannot_be_swept(overrides: Sequence[str]) -> None:
    """
    Raises:
        UserError: something that is for one run, or several processes that run this command.
    """
    if started_together() > 1:
        raise UserError(
            "torchrun and srun start one run: leave them out, and each job of -m starts its own processes"
        )
    if any(word.startswith("resume=") and word != "resume=null" for word in overrides):
        raise UserError("resume=... goes on with one run: leave out -m")
    if "largest_batch=true" in (word.lower() for word in overrides):
        raise UserError("largest_batch=true is for one configuration: leave out -m")


def check_n_jobs(n_jobs: object) -> None:
    if not isinstance(n_jobs, int) or n_jobs < 1:
        raise UserError(f"sweep.n_jobs={n_jobs}: it should be a whole number from 1 up")


def words_of_job(config: DictConfig, number: int, overrides: Sequence[str], folder: Path) -> list[str]:
    """The command line of a job: the sweep's command, what was said to Hydra itself, and the job's own settings."""
    own = [f"hydra.job.num={number}", f"hydra.job.id={number}", f"hydra.run.dir={quoted(folder)}"]
    return [config.hydra.job.config_name, *_repeated(config), *overrides, *own]


def _repeated(config: DictConfig) -> list[str]:
    """What the command line said to Hydra itself, for the jobs as well."""
    asked = [word for word in config.hydra.overrides.hydra if not word.startswith(_OF_THE_SWEEP)]
    sources = [s for s in config.hydra.runtime.config_sources if "command-line" in s.provider]
    folders = ",".join(quoted(f"{source.schema}://{source.path}") for source in sources)
    return [*([f"hydra.searchpath=[{folders}]"] if folders else []), *asked]
