"""A real SLURM on this machine, started for these tests: srun's processes, jobs that go back into the queue, sweeps."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ganforge as package

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.xdist_group("slurm"),  # jobs of two SLURMs have the same numbers, and so the same ports
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"SLURM is not installed: no {', '.join(missing)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons want to be root"),
]

CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job in the queue again starts when its old credentials have ended, after two minutes else.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 Port={first_port} CPUs=4 State=UNKNOWN
NodeName={host}-second NodeAddr=127.0.0.1 Port={second_port} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

TINY = ["model=mlp", "logger=csv", "batch_size=24", "metrics=none", "callbacks.samples=null"]
TWO = [*TINY, "trainer=ddp", "trainer.accelerator=cpu"]
ENDLESS = ["total_kimg=1000000", "callbacks.checkpoint.every_kimg=0", "callbacks.log.every_kimg=0.24"]

PREEMPTING = """
import os, subprocess
from lightning import Callback

class Preempt(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        job, restarts = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0")
        if job and restarts == "0" and trainer.global_rank == 1 and module.images_seen == 480:
            signal = os.environ.get("PREEMPT_BY", "USR1")
            subprocess.run(["scancel", f"--signal={signal}", job], check=True)
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch, srun and ganforge are typed; SLURM runs as long as the tests."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    source = str(Path(package.__file__).parents[1])
    names = ("controller_port", "first_port", "second_port")
    host = socket.gethostname().partition(".")[0]  # has an address; of the other no process asks for one
    text = CONFIGURATION.format(folder=folder, host=host, **{name: free_port() for name in names})
    (folder / "slurm.conf").write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")} | {
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "GANFORGE_CACHE": str(folder / "cache"),
    }
    files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    munged = [f"--{option}={folder / name}" for option, name in {**files, "seed-file": "seed"}.items()]
    nodes = [["slurmd", "-N", name] for name in (host, f"{host}-second")]
    try:
        for command in (["munged", "--force", *munged], ["slurmctld"], *nodes):
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        idle = ("sinfo", "-h", "-N", "-t", "idle")
        wait_for(lambda: len(call(environment, *idle).splitlines()) == 2, 60, "nodes that wait for work")
        yield environment
    finally:
        call(environment, "scancel", "--user=root")
        wait_for(lambda: not call(environment, "squeue", "-h"), 60, "the end of all jobs")
        for daemon in (f"slurmd-{host}", f"slurmd-{host}-second", "slurmctld", "munged"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((folder / f"{daemon}.pid").read_text()), 15)


def call(environment: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60).stdout


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come within {seconds:g} s"
        time.sleep(0.2)


class Job:
    """A batch job of two tasks, on one machine unless said otherwise."""

    def __init__(self, environment: dict[str, str], folder: Path, script: str, nodes: int = 1) -> None:
        self.environment = environment
        (folder / "job.sh").write_text(f"#!/bin/bash\n{script}\n")
        tasks = [f"--nodes={nodes}", "--ntasks=2"]
        words = ["sbatch", "--parsable", *tasks, "--requeue", "--open-mode=append", "--output=out", "job.sh"]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.id, self.output = done.stdout.strip(), folder / "out"

    @property
    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def state(self) -> str:
        facts = call(self.environment, "scontrol", "show", "job", "-o", self.id)
        return facts.partition("JobState=")[2].split()[0]

    def wait(self) -> str:
        ended = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT")
        wait_for(lambda: self.state() in ended, 240, f"the end of the job, which said {self.said}")
        return self.state()


def srun(*words: str) -> str:
    return " ".join(["exec srun --unbuffered", sys.executable, "-m ganforge train", *words])


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


def test_a_job_that_is_preempted_goes_on_by_itself_and_ends_as_if_it_had_not_been(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    """SIGUSR1, as sbatch --signal sends it, in the midst of a run of two processes."""
    (tmp_path / "preempting.py").write_text(PREEMPTING)
    words = [*TWO, "total_kimg=9.6", "+callbacks.preempt._target_=preempting.Preempt"]
    job = Job(slurm, tmp_path, srun(*words))
    assert job.wait() == "COMPLETED", job.said
    folder = tmp_path / "outputs" / "digits" / f"slurm-{job.id}"
    assert f"job {job.id} is back in the queue" in job.said
    assert job.said.count("2 processes share each batch of 24") == 2
    assert job.said.count(f"going on in {folder}") == 1
    assert not (folder / "failure.txt").exists()
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 2
    command = [sys.executable, "-m", "ganforge", "train", *words, "hydra.run.dir=whole"]
    done = subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    resumed, whole = state(folder), state(tmp_path / "whole")
    assert resumed["clock"] == whole["clock"]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name


def test_a_job_that_a_person_cancels_stays_cancelled(slurm: dict[str, str], tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, srun(*TWO, *ENDLESS))
    wait_for(lambda: "writing to" in job.said, 120, "a start")
    time.sleep(3)
    call(slurm, "scancel", job.id)
    assert job.wait() == "CANCELLED"
    assert "back in the queue" not in job.said
    folder = tmp_path / "outputs" / "digits" / f"slurm-{job.id}"
    assert "stopped by SIGTERM" in (folder / "failure.txt").read_text()
    assert state(folder)["clock"]["images_seen"] > 0


def test_a_job_of_one_process_that_does_not_want_to_go_on(slurm: dict[str, str], tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, srun(*TINY, *ENDLESS, "trainer.requeue=false").replace("srun", "srun -n 1"))
    wait_for(lambda: "writing to" in job.said, 120, "a start")
    time.sleep(3)
    call(slurm, "scancel", "--signal=USR1", job.id)
    assert job.wait() == "FAILED"
    assert "stopped by SIGUSR1" in job.said
    assert "back in the queue" not in job.said


def test_two_machines(slurm: dict[str, str], tmp_path: Path) -> None:
    words = [*TWO, "trainer.devices=1", "trainer.num_nodes=2", "total_kimg=0.048", "hydra.run.dir=run"]
    job = Job(slurm, tmp_path, srun(*words), nodes=2)
    assert job.wait() == "COMPLETED", job.said
    assert "2 processes share each batch of 24" in job.said
    assert state(tmp_path / "run")["clock"]["images_seen"] == 48


def test_a_mistake_ends_all_processes_of_srun(slurm: dict[str, str], tmp_path: Path) -> None:
    command = ["srun", "--ntasks=2", sys.executable, "-m", "ganforge", "train", *TWO, "losss=hinge"]
    done = subprocess.run(command, cwd=tmp_path, env=slurm, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("did you mean 'loss'?") == 1
    assert "task 1" not in done.stderr


def test_a_job_of_a_sweep_that_is_preempted_goes_on_by_itself(slurm: dict[str, str], tmp_path: Path) -> None:
    """By submitit, which asks SLURM for SIGUSR2."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "preempting.py").write_text(PREEMPTING)
    words = [*TWO, "total_kimg=4.8", "+callbacks.preempt._target_=preempting.Preempt", "seed=3"]
    sweep = ["-m", "hydra/launcher=slurm", "hydra.launcher.timeout_min=5", "hydra.sweep.dir=sweep"]
    environment = {**slurm, "PREEMPT_BY": "USR2"}
    command = [sys.executable, "-m", "ganforge", "train", *words, *sweep]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = "".join(path.read_text() for path in tmp_path.rglob("*_log.err"))
    assert "is back in the queue" in said
    folder = tmp_path / "sweep" / "0"
    assert f"going on in {folder}" in said
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 2
    assert not (folder / "failure.txt").exists()
    assert state(folder)["clock"]["images_seen"] == 4800
