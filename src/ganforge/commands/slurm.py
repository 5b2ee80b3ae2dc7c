"""Under SLURM: the processes that srun started, notice of an end that is near, and the job put back into the queue."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ganforge.commands.errors import UserError
from ganforge.commands.signals import handling

log = logging.getLogger("ganforge")

# SIGUSR1 is what sbatch --signal=USR1@60 sends, SIGUSR2 what submitit asks for, SIGTERM a preemption or the time limit.
NOTICES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_KILLED_WITHIN_SECONDS = 120


def in_batch_job() -> bool:
    """Whether sbatch started this, and not a person at a terminal of a job."""
    return "SLURM_JOB_ID" in os.environ and os.environ.get("ENVIRONMENT") == "BATCH"


def was_requeued() -> bool:
    return in_batch_job() and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def folder_name(otherwise: str) -> str:
    """The last part of the name of a run's folder: the same one each time a batch job starts.

    The n-th step of a job, counted from 0, has a folder of its own: a job's script may train several times.
    """
    if not in_batch_job():
        return otherwise
    step = os.environ.get("SLURM_STEP_ID", "0")
    return f"slurm-{os.environ['SLURM_JOB_ID']}" + (f".{step}" if step != "0" else "")


def join_step() -> None:
    """Says in torchrun's variables which of srun's processes this one is, where srun started several.

    Raises:
        UserError: the first machine's name is not to be had.
    """
    started = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if started == 1 or "RANK" in os.environ:
        return
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    srun = int(os.environ.get("SLURM_STEP_LAUNCHER_PORT", 0))
    os.environ.setdefault("MASTER_ADDR", _first_machine())
    # Below the ports that systems hand out by themselves; jobs of neighbouring numbers may share a machine, and a job
    # that comes back may find its old port not free yet.
    os.environ.setdefault("MASTER_PORT", str(15000 + (16 * job + step + srun) % 15000))
    os.environ["LOCAL_RANK"], os.environ["WORLD_SIZE"] = os.environ["SLURM_LOCALID"], str(started)
    os.environ["LOCAL_WORLD_SIZE"] = str(_processes_here())
    os.environ["RANK"] = os.environ["SLURM_PROCID"]


def _first_machine() -> str:
    if os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1":
        return "127.0.0.1"
    machines = os.environ["SLURM_STEP_NODELIST"]
    try:
        return _scontrol("show", "hostnames", machines).split()[0]
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"scontrol show hostnames {machines} failed ({error}): MASTER_ADDR=... in the environment names the "
            "first machine"
        ) from error


def _processes_here() -> int:
    """Of SLURM_STEP_TASKS_PER_NODE, such as `2(x3),1`: two on each of three machines, one on the fourth."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_STEP_TASKS_PER_NODE"]):
        counts += [int(count)] * int(times or 1)
    return counts[int(os.environ["SLURM_NODEID"])]


class Notice:
    """What SLURM said of the end of this job.

    Attributes:
        seen: the first signal that came.
    """

    seen: signal.Signals | None = None


@contextmanager
def noticing() -> Iterator[Notice]:
    """In a batch job SLURM's signals are noted, and end nothing by themselves; else nothing is done."""
    notice = Notice()
    if not in_batch_job():
        yield notice
        return

    def note(number: int, _: FrameType | None) -> None:
        notice.seen = notice.seen or signal.Signals(number)

    with handling(NOTICES, note):
        yield notice


def requeue() -> None:
    """Puts this job back into the queue, and waits for SLURM to end it; returns where that cannot be, and says why."""
    job = os.environ["SLURM_JOB_ID"]
    try:
        facts = dict(word.partition("=")[::2] for word in _scontrol("show", "job", "-o", job).split())
        if facts["JobState"] != "RUNNING":
            # Cancelled by a person, or at its time limit: SLURM says the same of both.
            log.warning("job %s is being ended by SLURM, and is not put back into the queue", job)
            return
        _scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning("job %s could not be put back into the queue: %s", job, " ".join(said.split()))
        return
    log.info("job %s is back in the queue, and goes on by itself", job)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # An ordinary end now would be taken for the job's own.
    time.sleep(_KILLED_WITHIN_SECONDS)


def _scontrol(*words: str) -> str:
    done = subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout
