"""Searches over quick jobs: samplers, pruning, seeds, failures, and what is left to read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from ganforge.commands.sweeps import pruners, samplers
from ganforge.commands.sweeps.study import SharedStudy


def read(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "trials.json").read_text())
    return result


def states(folder: Path) -> list[str]:
    return [trial["state"] for trial in read(folder)["trials"]]


@pytest.mark.parametrize(
    ("make", "metrics"),
    [
        (lambda number: optuna.samplers.TPESampler(seed=number, n_startup_trials=3), ["fid"]),
        (lambda number: samplers.auto(["minimize"], seed=number), ["fid"]),
        (lambda number: optuna.samplers.CmaEsSampler(seed=number, warn_independent_sampling=False), ["fid"]),
        (lambda number: optuna.samplers.RandomSampler(seed=number), ["fid"]),
        (
            lambda number: optuna.samplers.NSGAIISampler(seed=number, population_size=4),
            ["fid", "images_per_second"],
        ),
    ],
    ids=["tpe", "auto", "cmaes", "random", "nsga2"],
)
def test_samplers(make: Any, metrics: list[str], search: Callable[..., SharedStudy], tmp_path: Path) -> None:
    words = ["x=interval(0,1)", "y=tag(log, interval(1e-3,1))", "z=int(interval(1,4))", "c=a,b", "fixed=1"]
    study = search(words=words, sampler=make, metrics=metrics, n_trials=7, n_jobs=2)
    found = read(tmp_path / "sweep")
    assert [trial["number"] for trial in found["trials"]] == list(range(7))
    assert states(tmp_path / "sweep") == ["complete"] * 7
    assert found["metrics"] == metrics
    for trial in found["trials"]:
        x = trial["params"]["x"]
        assert trial["values"] == pytest.approx([(x - 0.3) ** 2, 100 * x][: len(metrics)])
        assert (tmp_path / "sweep" / trial["folders"][0]).is_dir()
        assert set(trial["params"]) == {"x", "y", "z", "c"}
    if len(metrics) == 1:
        assert study.best()[0].value == min(trial["values"][0] for trial in found["trials"])
    else:
        # x below 0.3 is worse in both: the front is what is not below another in speed and above it in FID
        front = {trial.number for trial in study.best()}
        for trial in found["trials"]:
            fid, speed = trial["values"]
            beaten = any(t["values"][0] < fid and t["values"][1] > speed for t in found["trials"])
            assert beaten == (trial["number"] not in front)


def test_grid_has_each_point_once(search: Callable[..., SharedStudy], tmp_path: Path) -> None:
    grid = {"x": [0.0, 0.25, 0.5], "c": ["a", "b"]}
    search(
        words=["x=range(0,0.75,0.25)", "c=a,b"], sampler=lambda _: samplers.Grid(grid), n_trials=6, n_jobs=2
    )
    points = [tuple(trial["params"].values()) for trial in read(tmp_path / "sweep")["trials"]]
    assert sorted(points) == sorted((x, c) for x in grid["x"] for c in grid["c"])


PRUNERS = {
    "median": lambda: pruners.median(startup_trials=2, warmup_kimg=2),
    "percentile": lambda: pruners.percentile(25, startup_trials=2, warmup_kimg=2),
    "hyperband": lambda: pruners.hyperband(min_kimg=2, max_kimg=10, reduction_factor=2),
}


@pytest.mark.parametrize("name", PRUNERS)
def test_pruning(name: str, search: Callable[..., SharedStudy], tmp_path: Path) -> None:
    """Bad trials after good ones end early, and never before the time that is asked for; the best one does not."""
    words = ["x=" + ",".join(map(str, (0.3, 0.31, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)))]
    values = [float(value) for value in words[0][2:].split(",")]
    in_order = lambda number: InOrder({"x": values}, number)  # noqa: E731
    search(words=words, pruner=PRUNERS[name](), n_trials=8, sampler=in_order)
    found = read(tmp_path / "sweep")["trials"]
    assert found[0]["state"] == "complete"
    pruned = [trial for trial in found if trial["state"] == "pruned"]
    assert len(pruned) >= (2 if name == "hyperband" else 5)
    log = (tmp_path / "sweep" / "played.log").read_text().splitlines()
    for trial in pruned:
        assert trial["values"] is None
        assert trial["error"] is None
        kimg = [kimg for kimg, _ in trial["reports"]]
        assert 2 <= kimg[-1] < 10
        assert f"{trial['number']} pruned" in log
        assert f"{trial['number']} evaluation {kimg[-1]:.0f}" in log
        assert f"{trial['number']} evaluation {kimg[-1] + 1:.0f}" not in log


class InOrder(optuna.samplers.RandomSampler):
    """The values of a list in their order."""

    def __init__(self, values: dict[str, list[Any]], number: int) -> None:
        super().__init__()
        self.values, self.number = values, number

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        values = self.values[param_name]
        return values[self.number % len(values)]


def test_seeds_repeat_a_point_and_their_mean_counts(
    search: Callable[..., SharedStudy], tmp_path: Path
) -> None:
    study = search(seeds=[4, 5, 6], n_trials=3, n_jobs=2)
    for trial, frozen in zip(read(tmp_path / "sweep")["trials"], study.trials(), strict=True):
        assert trial["folders"] == [f"{trial['number']}_seed{seed}" for seed in (4, 5, 6)]
        runs = [(trial["params"]["x"] + seed / 100 - 0.3) ** 2 for seed in (4, 5, 6)]
        assert trial["values"] == pytest.approx([statistics.fmean(runs)])
        assert trial["spreads"] == pytest.approx([statistics.stdev(runs)])
        assert len(frozen.intermediate_values) == 9  # of the first run only


def test_a_pruned_point_is_not_repeated(search: Callable[..., SharedStudy], tmp_path: Path) -> None:
    in_order = lambda number: InOrder({"x": [0.3, 0.9]}, number)  # noqa: E731
    pruner = pruners.median(startup_trials=1)
    search(words=["x=0.3,0.9"], seeds=[0, 1], n_trials=2, sampler=in_order, pruner=pruner)
    assert states(tmp_path / "sweep") == ["complete", "pruned"]
    assert (tmp_path / "sweep" / "0_seed1").exists()
    assert not (tmp_path / "sweep" / "1_seed1").exists()


def test_trials_that_fail_do_not_end_a_search(search: Callable[..., SharedStudy], tmp_path: Path) -> None:
    wishes = ["fail", "no_number", "die", "die_once", "none"]
    in_order = lambda number: InOrder({"wish": wishes}, number)  # noqa: E731
    search(words=["wish=" + ",".join(wishes)], n_trials=5, sampler=in_order)
    trials = read(tmp_path / "sweep")["trials"]
    assert [trial["state"] for trial in trials] == ["fail", "fail", "fail", "complete", "complete"]
    assert trials[0]["error"] == "a bad configuration"
    assert trials[1]["error"] == "fid is nan"
    assert trials[2]["error"] == "was killed by SIGKILL, as 3 times in all"
    log = (tmp_path / "sweep" / "played.log").read_text().splitlines()
    assert [line for line in log if line.startswith("3 ")] == [  # from where it was
        *(f"3 evaluation {number}" for number in range(1, 11)),
        "3 end",
    ]


def test_a_folder_of_another_run_is_left_alone(search: Callable[..., SharedStudy], tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("x: 1\n")
    (folder / "overrides.yaml").write_text("['x=1']\n")
    search(n_trials=2)
    assert states(tmp_path / "sweep") == ["fail", "complete"]
    assert "holds another run" in read(tmp_path / "sweep")["trials"][0]["error"]
    assert (folder / "config.yaml").read_text() == "x: 1\n"


def test_a_finished_study_has_nothing_to_do_and_a_larger_one_has(
    search: Callable[..., SharedStudy], tmp_path: Path
) -> None:
    search(n_trials=3)
    before = read(tmp_path / "sweep")["trials"]
    search(n_trials=3)
    assert read(tmp_path / "sweep")["trials"] == before
    search(n_trials=5)
    after = read(tmp_path / "sweep")["trials"]
    assert after[:3] == before
    assert len(after) == 5
    log = (tmp_path / "sweep" / "played.log").read_text().splitlines()
    assert sorted(line for line in log if line.endswith("end")) == [f"{number} end" for number in range(5)]
