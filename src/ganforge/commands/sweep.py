"""`-m` for train and profile: each job in a process of its own, so that nothing of one is left for the next.

Weights & Biases, CUDA's memory, PyTorch's global settings and the processes of several devices end with their job.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from ganforge.commands.configuration import PastHydra
from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.job_of_a_sweep import RESULT, SWEEP
from ganforge.commands.run_folder import quoted
from ganforge.commands.signals import handling
from ganforge.commands.slurm import NOTICES, in_batch_job
from ganforge.commands.started import started_together

log = logging.getLogger("ganforge")

# What says that a process is one of several: each job's first process starts its own.
_OF_SEVERAL = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "GANFORGE_FIRST_PROCESS", RESULT, SWEEP),
)
_OF_THE_SWEEP = (
    "hydra.mode",
    "hydra.run",
    "hydra.sweep",
    "hydra.searchpath",
    "hydra.launcher",
    "hydra/launcher",
    "hydra/sweeper",
)


class SweepInProcesses(Launcher):
    """Runs `ganforge COMMAND OVERRIDES hydra.run.dir=FOLDER` for every job of a sweep, one after the other."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._hydra, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """
        Raises:
            UserError: what cannot be swept.
            PastHydra: a signal stopped a job, and with it the sweep.
        """
        if started_together() > 1:
            raise PastHydra(
                UserError(
                    "torchrun and srun start one run: leave them out, and each job of -m starts its own processes"
                )
            )
        if any(word.startswith("resume=") and word != "resume=null" for word in job_overrides[0]):
            raise PastHydra(UserError("resume=... goes on with one run: leave out -m"))
        if "largest_batch=true" in (word.lower() for word in job_overrides[0]):
            raise PastHydra(UserError("largest_batch=true is for one configuration: leave out -m"))
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        return [
            self._job(number, list(job)) for number, job in enumerate(job_overrides, start=initial_job_idx)
        ]

    def _job(self, number: int, overrides: list[str]) -> JobReturn:
        config = self._hydra.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        of_the_sweep = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # a folder's name may ask for it
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        HydraConfig.instance().cfg = of_the_sweep
        own = [f"hydra.job.num={number}", f"hydra.job.id={number}", f"hydra.run.dir={quoted(folder)}"]
        command = config.hydra.job.config_name
        words = [command, *self._repeated(), *overrides, *own]
        job = JobReturn(overrides=overrides, hydra_cfg=config, working_dir=os.getcwd(), task_name=command)
        try:
            job.return_value = _run(words)
            job.status = JobStatus.COMPLETED
        except (UserError, RunFailedError) as error:
            if isinstance(error, RunFailedError) and error.stopped:
                raise PastHydra(error) from error
            log.error("job %d: %s", number, error)
            job.return_value, job.status = error, JobStatus.FAILED
        return job

    def _repeated(self) -> list[str]:
        """What the command line said to Hydra itself, for the jobs as well."""
        asked = [word for word in self._config.hydra.overrides.hydra if not word.startswith(_OF_THE_SWEEP)]
        sources = [s for s in self._config.hydra.runtime.config_sources if "command-line" in s.provider]
        folders = ",".join(quoted(f"{source.schema}://{source.path}") for source in sources)
        return [*([f"hydra.searchpath=[{folders}]"] if folders else []), *asked]


def _run(words: Sequence[str]) -> Any:
    """The result of `ganforge WORDS` in another process, which gets the signals that this one gets."""
    with tempfile.TemporaryDirectory(prefix="ganforge-job-") as folder:
        result = Path(folder) / "result.json"
        environment = {name: value for name, value in os.environ.items() if name not in _OF_SEVERAL}
        environment |= {RESULT: str(result), SWEEP: str(os.getpid())}
        with _forwarding() as forward:
            job = subprocess.Popen([sys.executable, "-m", "ganforge", *words], env=environment)
            forward.to = job
            if forward.seen is not None:
                job.send_signal(forward.seen)
            code = job.wait()
        said = json.loads(result.read_text()) if result.exists() else {}
    if code == 0:
        return said["returned"]
    if "error" in said:
        message = said["error"]
    elif forward.seen is not None:
        message, code = f"stopped by {forward.seen.name} before it played", 128 + forward.seen
    else:
        message = (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        )
    raise UserError(message) if code == 2 else RunFailedError(message, max(code, 1))


class _Forward:
    to: subprocess.Popen[bytes] | None = None
    seen: signal.Signals | None = None


@contextmanager
def _forwarding() -> Iterator[_Forward]:
    """Signals to this process go on to the job; at a terminal it may hear of them twice, and takes them as one."""
    forward = _Forward()

    def hand_on(number: int, _: FrameType | None) -> None:
        forward.seen = signal.Signals(number)
        if forward.to is not None:
            forward.to.send_signal(number)

    numbers = {signal.SIGINT, signal.SIGTERM, *(NOTICES if in_batch_job() else ())}
    with handling(numbers, hand_on):
        yield forward
