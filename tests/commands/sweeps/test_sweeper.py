"""`ganforge train sweep=optuna ...` and `-m` with several jobs at a time, typed as users type them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from ganforge.commands import resolvers, schema
from ganforge.commands.configuration import composing
from ganforge.commands.options import options
from ganforge.commands.sweeps import jobs
from ganforge.commands.sweeps.best import experiment_of

LR = "optimizer.generator.lr=interval(0.001,1)"


@pytest.fixture
def quick(
    train: Any, own_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """`ganforge train WORDS` with jobs that take no time; the folder of the sweep is `sweep`."""
    monkeypatch.setenv("PYTHONPATH", own_environment["PYTHONPATH"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(Path(__file__).with_name("quick_job.py"))))
    return lambda *words: train("metrics=digits", "hydra.sweep.dir=sweep", *words)


def read(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "trials.json").read_text())
    return result


@pytest.mark.parametrize("name", options()["sweep/sampler"])
def test_every_sampler_searches(name: str, quick: Any, tmp_path: Path) -> None:
    space = "optimizer.generator.lr=range(0.1,0.9,0.2)" if name == "grid" else LR
    metrics = ["sweep.metric=[fid,images_per_second]"] if name == "nsga2" else []
    outcome = quick("sweep=optuna", f"sweep.sampler={name}", "sweep.n_trials=4", space, *metrics)
    assert outcome.code == 0, outcome.err
    found = read(tmp_path / "sweep")
    expected = {
        "auto": "TPE",
        "tpe": "TPE",
        "cmaes": "CmaEs",
        "nsga2": "NSGAII",
        "random": "Random",
        "grid": "Grid",
    }
    assert found["sampler"] == expected[name]
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 4
    assert len({trial["params"]["optimizer.generator.lr"] for trial in found["trials"]}) == 4
    assert found["directions"] == (["minimize", "maximize"] if metrics else ["minimize"])


@pytest.mark.parametrize("name", options()["sweep/pruner"])
def test_every_pruner_is_one(name: str, quick: Any, tmp_path: Path) -> None:
    """Of a run whose length says how long its trials are: the quick jobs report at 1, 2, ... 9 kimg."""
    words = ["total_kimg=10", f"sweep.pruner={name}", "sweep.n_trials=8", "sweep.sampler=random"]
    startup = ["sweep.pruner.startup_trials=1"] if name in ("median", "percentile") else []
    outcome = quick("sweep=optuna", *words, *startup, LR)
    assert outcome.code == 0, outcome.err
    states = [trial["state"] for trial in read(tmp_path / "sweep")["trials"]]
    assert ("pruned" in states) == (name != "none")
    assert "complete" in states


def test_the_same_command_goes_on_and_a_changed_one_is_refused(quick: Any, tmp_path: Path) -> None:
    words = ["-m", "sweep=optuna", "sweep.n_trials=2", LR, "loss=hinge,wasserstein"]
    assert quick(*words).code == 0
    before = read(tmp_path / "sweep")["trials"]
    outcome = quick(*words)
    assert outcome.code == 0
    assert read(tmp_path / "sweep")["trials"] == before
    assert quick(*words, "sweep.n_trials=3", "sweep.sampler=random", "workers=0").code == 0
    assert read(tmp_path / "sweep")["trials"][:2] == before
    assert len(read(tmp_path / "sweep")["trials"]) == 3
    quick(*words, "batch_size=16").refuses("batch_size=32 there", "batch_size=16 here", "sweep.study=")


def test_the_table_and_the_last_line_say_what_to_do(quick: Any) -> None:
    outcome = quick("sweep=optuna", "sweep.n_trials=3", "sweep.n_jobs=2", "sweep.seeds=2", LR)
    assert "study search: 3 complete" in outcome.out
    assert " * │" in outcome.out
    assert "±" in outcome.out
    assert "ganforge train --config-dir sweep experiment=best" in outcome.err
    assert "[0_seed0] played" in outcome.out


def test_a_space_in_a_file_of_the_users(quick: Any, tmp_path: Path) -> None:
    """The command line has the last word on it."""
    (tmp_path / "own" / "hydra" / "sweeper").mkdir(parents=True)
    params = {
        "loss": "hinge,wasserstein",
        "optimizer.generator.lr": "tag(log, interval(1e-3, 1))",
        "seed": "1,2",
    }
    text = yaml.safe_dump({"defaults": ["optuna", "_self_"], "n_trials": 2, "params": params})
    (tmp_path / "own" / "hydra" / "sweeper" / "mine.yaml").write_text(text)
    outcome = quick("--config-dir", "own", "sweep=mine", "seed=3")
    assert outcome.code == 0, outcome.err
    trials = read(tmp_path / "sweep")["trials"]
    assert [set(trial["params"]) for trial in trials] == [{"loss", "optimizer.generator.lr"}] * 2
    asked = yaml.safe_load((tmp_path / "sweep" / "1" / "overrides.yaml").read_text())
    assert "seed=3" in asked


def test_folders_are_those_of_the_study_unless_said_otherwise(train: Any) -> None:
    for words, folder in (
        (["sweep=optuna"], "outputs/digits/search_sweep"),
        (["sweep=optuna", "sweep.study=widths"], "outputs/digits/widths_sweep"),
    ):
        composed = OmegaConf.create(train(*words, "--cfg", "hydra").out)
        with composing() as compose:
            schema.register()
            resolvers.register()
            more = ["hydra/sweeper=optuna", f"hydra.sweeper.study={composed.hydra.sweeper.study}"]
            config = compose(config_name="train", overrides=more, return_hydra_config=True)
        assert config.hydra.sweep.dir == folder


SEARCH = ("sweep=optuna", "hydra.sweep.dir=sweep")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((*SEARCH,), ["nothing to search", "interval("]),
        ((*SEARCH, LR, "sweep.sampler=gris"), ["there is no sweep.sampler=gris", "did you mean 'grid'?"]),
        (
            (*SEARCH, LR, "sweep.n_job=2"),
            ["there is no setting 'sweep.n_job'", "did you mean 'sweep.n_jobs'?"],
        ),
        ((*SEARCH, LR, "sweep.n_jobs=0"), ["sweep.n_jobs=0", "from 1 up"]),
        ((*SEARCH, LR, "sweep.n_trials=none"), ["sweep.n_trials=none"]),
        ((*SEARCH, LR, "sweep.seeds=2", "seed=1,2"), ["sweep.seeds", "leave seed=..."]),
        (
            (*SEARCH, LR, "sweep.metric=fids", "metrics=digits"),
            ["sweep.metric=fids: it can be fid,", "images_per"],
        ),
        ((*SEARCH, LR, "sweep.metric=fid_real_halves", "metrics=digits"), ["it can be fid,"]),
        ((*SEARCH, LR, "metrics=none"), ["sweep.metric=null: it can be images_per_second"]),
        ((*SEARCH, LR, "sweep.sampler=grid", "metrics=digits"), ["sweep.sampler=grid", "is an interval"]),
        (
            (*SEARCH, LR, "sweep.metric=[fid,images_per_second]", "sweep.pruner=median", "metrics=digits"),
            ["sweep.pruner", "one metric"],
        ),
        ((*SEARCH, LR, "sweep.sampler.popsize=3"), ["sweep.sampler.popsize"]),
        (
            (*SEARCH, "loss=hinge,wasserstien"),
            ["there is no loss=wasserstien", "did you mean 'wasserstein'?"],
        ),
        ((*SEARCH, LR, "losss=hinge"), ["did you mean 'loss'?"]),
        ((*SEARCH, LR, "trainer.precision=half", "metrics=digits"), ["trainer.precision=half"]),
        ((*SEARCH, "optimizer.generator.lr=tag(lin,interval(0,1))"), ["the only tag here is log"]),
        ((*SEARCH, LR, "hydra/launcher=joblib"), ["hydra/launcher=joblib", "sweep.n_jobs=2"]),
        (("-m", "seed=0,1", "sweep.n_jobs=two"), ["sweep.n_jobs=two", "whole number"]),
        (("-m", "seed=0,1", "sweep.n_trials=2"), ["there is no setting 'sweep.n_trials'"]),
        (("-m", LR), ["interval", "sweep=optuna"]),
        ((*SEARCH, LR, "sweep.study=a/b"), ["sweep.study=a/b"]),
        ((*SEARCH, LR, "sweep.storage=nosuch://u:hidden-word@h/d", "metrics=digits"), ["nosuch://u:***@h/d"]),
        ((*SEARCH, LR, "sweep.storage=sqlite://u:hidden-word@h=d"), ["***"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_in_one_message(words: tuple[str, ...], parts: list[str], train: Any) -> None:
    outcome = train(*words)
    outcome.refuses(*parts)
    assert "hidden-word" not in outcome.err + outcome.out


def test_profile_is_not_searched(ganforge: Any) -> None:
    ganforge("profile", "sweep=optuna", "fast.all=true,false").refuses("sweep=optuna is for train", "profile")


def test_runs_without_a_study_are_not_taken_for_its_own(quick: Any, tmp_path: Path) -> None:
    (tmp_path / "sweep" / "0").mkdir(parents=True)
    (tmp_path / "sweep" / "0" / "config.yaml").write_text("{}\n")
    quick("sweep=optuna", LR).refuses("sweep holds runs", "sweep.study=")


@pytest.mark.parametrize(
    "words",
    [
        ["loss=hinge", "optimizer.generator.lr=1e-05", "batch_size=16"],
        ["experiment=grid_wgan_gp", "penalty.gradient_penalty.weight=3", "seed=4"],
        ["penalty=[r1,r2]", "penalty.r1.gamma=0.5", "tags=[a,b]", "augment=ada", "head=projection"],
        ["~experiment", "name=mine", "model=mlp", "+schedule@ema.half_life_kimg=cosine", "++stop.fid=20"],
        [
            "model=mlp",
            "+model.generator.hidden_layers=2",
            "name='a b: c'",
            "optimizer.generator.betas=[0.5,0.9]",
        ],
        ["metrics/compute=[fid,kid]", "optimizer.generator.lr=${optimizer.discriminator.lr}"],
    ],
    ids=" ".join,
)
def test_an_experiment_says_what_the_command_line_said(words: list[str], tmp_path: Path) -> None:
    overrides = OverridesParser.create().parse_overrides(words)
    text, left_out = experiment_of(overrides, is_group, "digits", "The best.")
    assert left_out == []
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "best.yaml").write_text(text)
    schema.register()
    resolvers.register()
    with composing() as compose:
        asked = compose(config_name="train", overrides=words)
        search = f"hydra.searchpath=['file://{tmp_path}']"
        best = compose(config_name="train", overrides=[search, "experiment=best"])
    assert OmegaConf.to_container(best) == OmegaConf.to_container(asked)


def test_what_an_experiment_cannot_say_is_told() -> None:
    overrides = OverridesParser.create().parse_overrides(
        ["~callbacks.samples", "experiment=grid_gan", "seed=1"]
    )
    text, left_out = experiment_of(overrides, is_group, "digits", "One.\nTwo.")
    assert left_out == ["~callbacks.samples"]
    assert text == "# @package _global_\n# One.\n# Two.\ndefaults:\n- grid_gan\n- _self_\nseed: 1\n"


def is_group(override: Override) -> bool:
    return override.key_or_group in options()


@pytest.mark.usefixtures("nothing_is_left")
def test_a_grid_of_several_jobs_at_a_time(quick: Any, tmp_path: Path) -> None:
    """Six folders; the one that fails is named, and the others come to their end. Nothing of them is left."""
    words = ["+callbacks.note._target_=x", "seed=0,1,2,3,4,5", "sweep.n_jobs=3"]
    outcome = quick("-m", *words, "tags=[a]")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()} == set("012345")
    assert sorted(outcome.out.splitlines()) == [f"[{number}] played None" for number in range(6)]
    for number in range(6):
        asked = yaml.safe_load((tmp_path / "sweep" / str(number) / "overrides.yaml").read_text())
        assert f"seed={number}" in asked


def test_a_job_of_a_grid_that_fails_is_named(quick: Any, tmp_path: Path) -> None:
    outcome = quick(
        "-m", "+stop.wish=1", "tags=[a]", "seed=0,1,2", "sweep.n_jobs=2", "hydra.job.name=x", "name=a,fail"
    )
    assert outcome.code == 2
    assert outcome.err.count("a bad configuration") >= 1
