"""GPUs are dealt out evenly, whether there are any here or not."""

from __future__ import annotations

from collections import Counter

import pytest

from ganforge.commands.sweeps.gpus import Gpus, gpus_here, wanted_by


def test_each_job_has_one_of_its_own_until_there_are_more_jobs_than_gpus() -> None:
    gpus = Gpus(["0", "1", "2"])
    taken = [gpus.take(1) for _ in range(6)]
    assert taken[:3] == [["0"], ["1"], ["2"]]
    assert Counter(name for names in taken for name in names) == {"0": 2, "1": 2, "2": 2}


def test_a_gpu_that_is_given_back_is_dealt_next() -> None:
    gpus = Gpus(["0", "1", "2"])
    first, second, _ = gpus.take(1), gpus.take(1), gpus.take(1)
    gpus.give_back(second)
    assert gpus.take(1) == second
    gpus.give_back(first)
    assert gpus.take(2) == ["0", "1"]


def test_a_run_of_several_devices_has_several() -> None:
    gpus = Gpus(["0", "1", "2", "3"])
    assert gpus.take(2) == ["0", "1"]
    assert gpus.take(2) == ["2", "3"]
    assert Gpus(["0", "1"]).take(None) == ["0", "1"]
    assert Gpus(["0"]).take(2) == ["0"]  # the run itself says that this is too few
    assert Gpus().take(1) == []


@pytest.mark.parametrize(
    ("trainer", "wanted"),
    [
        ({}, 1),
        ({"accelerator": "cpu", "devices": 2}, 0),
        ({"accelerator": "auto", "devices": "auto"}, None),
        ({"accelerator": "gpu", "devices": 2}, 2),
    ],
)
def test_what_a_run_wants(trainer: dict[str, object], wanted: int | None) -> None:
    assert wanted_by(trainer) == wanted


def test_only_what_the_environment_shows_is_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f2a")
    gpus = gpus_here()
    assert gpus.take(1) + gpus.take(1) == ["3", "GPU-8f2a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_here().take(1) == []
