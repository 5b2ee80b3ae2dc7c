"""What SLURM's variables say of a process, without SLURM."""

from __future__ import annotations

import os

import pytest

from ganforge.commands import slurm
from ganforge.commands.started import comes_after_the_first, started_together

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_LAUNCHER_PORT": "40000",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_NODEID": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ENVIRONMENT")
NAMES += ("SLURM_RESTART_COUNT",)


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*STEP, *NAMES):
        monkeypatch.setenv(name, "")  # so that what a test makes of it is undone
        monkeypatch.delenv(name)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


@pytest.mark.parametrize(("node", "here"), [("0", "2"), ("2", "2"), ("3", "1")])
def test_a_process_of_srun_is_one_of_torchruns(node: str, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**STEP, "SLURM_NODEID": node})
    slurm.join_step()
    assert variables("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE") == ["5", "7", "1", here]
    assert variables("MASTER_ADDR", "MASTER_PORT") == [
        "127.0.0.1",
        str(15000 + (16 * 4711 + 1 + 40000) % 15000),
    ]
    assert started_together() == 7
    assert comes_after_the_first()


def test_what_is_set_already_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**STEP, "MASTER_ADDR": "n1", "MASTER_PORT": "29500"})
    slurm.join_step()
    assert variables("RANK", "MASTER_ADDR", "MASTER_PORT") == ["5", "n1", "29500"]


def test_torchrun_inside_of_srun_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**STEP, "RANK": "0", "WORLD_SIZE": "2"})
    slurm.join_step()
    assert variables("RANK", "WORLD_SIZE", "MASTER_ADDR") == ["0", "2", None]


@pytest.mark.parametrize("others", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": None}])
def test_one_process_is_alone(others: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: value for name, value in {**STEP, **others}.items() if value is not None}
    set_all(monkeypatch, kept)
    slurm.join_step()
    assert started_together() == 1


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "now"),
        ({"SLURM_JOB_ID": "7"}, "now"),  # at a terminal of a job
        ({"SLURM_JOB_ID": "7", "ENVIRONMENT": "BATCH"}, "slurm-7"),
        ({"SLURM_JOB_ID": "7", "ENVIRONMENT": "BATCH", "SLURM_STEP_ID": "0"}, "slurm-7"),
        ({"SLURM_JOB_ID": "7", "ENVIRONMENT": "BATCH", "SLURM_STEP_ID": "2"}, "slurm-7.2"),
    ],
)
def test_the_name_of_a_batch_jobs_folder(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    assert slurm.folder_name("now") == name
    assert slurm.was_requeued() is False
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert slurm.was_requeued() is ("ENVIRONMENT" in variables)
