"""What a run's folder says, whole or broken, of a run that plays, ended or is gone."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st

from ganforge import runs
from ganforge.runs import Process, RunFolder, differing, find_runs, flat, grouped, holds_a_run, read_search


def edit_start(folder: Path, **values: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    record["starts"][-1] |= values
    (folder / "run.json").write_text(json.dumps(record))


def test_a_whole_folder(tmp_path: Path, write_run: Any) -> None:
    event = {"images_seen": 2000, "kimg": 2.0, "check": "collapse", "message": "alike", "action": "warn"}
    run = RunFolder(write_run(tmp_path / "outputs" / "digits" / "now", seed=4, grids=3, health=[event]))
    assert run.name == "digits/now"
    assert run.settings["loss"] == "hinge"
    assert run.settings["optimizer.generator.lr"] == 1e-3
    assert run.asked == ["loss=hinge", "seed=4"]
    assert list(run.curves) == ["train/generator/adversarial", "val/fid"]
    assert run.curves["val/fid"].kimg == (1.0, 2.0, 3.0)
    assert run.curves["val/fid"].values == (30.0, 20.0, 10.0)
    assert run.best("val/fid") == (10.0, 3.0)
    assert run.best("train/generator/adversarial") is None, "a loss has no better side"
    assert (run.scores, run.monitor) == ({"fid": 10.0, "precision": 0.5}, "fid")
    assert (run.protocol, run.curve_protocol("val/fid")) == ("aaaa0000", "fewaaaa0000")
    assert [grid.kimg for grid in run.grids["samples"]] == [0.0, 1.5, 3.0]
    assert [(e.check, e.kimg, e.action, e.value) for e in run.health] == [("collapse", 2.0, "warn", None)]
    assert run.ending == ("ended", "3 kimg")
    assert run.kimg == 3.0
    assert run.problems == []


def test_an_empty_folder_is_no_run_and_nothing_raises(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not holds_a_run(tmp_path)
    assert (run.config, run.curves, run.scores, run.grids, run.health, run.checkpoints) == (
        {},
        {},
        {},
        {},
        [],
        [],
    )
    assert run.ending[0] == "failed"
    with pytest.raises(ValueError, match="there is no run in"):
        find_runs([tmp_path])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "scores.json", "overrides.yaml"])
def test_a_broken_file_is_named_and_the_rest_is_read(name: str, tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_text("{broken: [")
    run = RunFolder(folder)
    assert run.curves["val/fid"].values == (30.0, 20.0, 10.0)
    for read in (run.settings, run.starts, run.scores, run.asked, run.ending):
        assert read is not None
    assert [problem.startswith(f"{name} is broken") for problem in run.problems] == [True]


@given(cut=st.integers(0, 120))
def test_a_csv_that_a_kill_cut_short_gives_its_whole_rows(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    rows = ["images_seen,kimg,a,b", "1000,1,0.5,", "2000,2,nan,7.5", "3000,3,1.25,8.5"]
    text = "".join(f"{row}\r\n" for row in rows)
    (folder / "metrics.csv").write_bytes(text[: max(len(text) - cut, 0)].encode())
    whole = text[: max(len(text) - cut, 0)].count("\n") - 1
    curves = RunFolder(folder).curves
    assert list(curves["a"].kimg if "a" in curves else ()) == [1.0, 2.0, 3.0][: max(whole, 0)]
    assert list(curves["b"].values if "b" in curves else ()) == [7.5, 8.5][: max(whole - 1, 0)]
    if whole > 1:
        assert math.isnan(curves["a"].values[1])


def test_the_best_of_a_curve_with_gaps(tmp_path: Path, write_run: Any) -> None:
    run = RunFolder(write_run(tmp_path / "run", fid=(5.0, math.nan, 3.0, 3.0)))
    assert run.best("val/fid") == (3.0, 3.0), "the first of equals"


def test_a_run_that_plays_is_told_from_one_that_was_killed(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "run", end=None)
    code = "import json; from ganforge.runs import Process; print(json.dumps(vars(Process.own())), flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as player:
        edit_start(folder, process=json.loads(player.stdout.readline()))  # type: ignore[union-attr]
        assert RunFolder(folder).state == "running"
        player.kill()
        player.wait()
    state, reason = RunFolder(folder).ending
    assert state == "failed"
    assert "without a word" in reason


def test_another_process_with_the_same_number_is_not_the_run(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "run", end=None)
    own = Process.own()
    edit_start(folder, process=vars(own))
    assert RunFolder(folder).state == "running"
    if own.started is not None:
        edit_start(folder, process=vars(own) | {"started": "before"})
        assert RunFolder(folder).state == "failed"


def test_a_run_of_another_machine_is_judged_by_what_it_wrote_last(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "run", end=None)
    edit_start(folder, process={"host": "elsewhere", "pid": 1, "started": "x"})
    assert RunFolder(folder).ending == ("running", "on elsewhere")
    before = time.time() - runs.SILENT_SECONDS - 60
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (before, before))
    assert RunFolder(folder).state == "failed"


@pytest.mark.parametrize(
    ("end", "failure", "state"),
    [
        ("failed", "loss became nan", "failed"),
        ("stopped", "stopped by SIGTERM at 2 kimg", "stopped"),
        (None, "stopped by SIGINT at 2 kimg", "stopped"),
        (None, "OSError: disk full", "failed"),
        ("pruned", None, "pruned"),
    ],
)
def test_how_a_run_ended_is_in_its_own_words(
    end: str | None, failure: str | None, state: str, tmp_path: Path, write_run: Any
) -> None:
    assert RunFolder(write_run(tmp_path / "run", end=end, failure=failure)).ending == (
        state,
        failure or "3 kimg",
    )


def test_a_run_from_before_ends_were_recorded(tmp_path: Path, write_run: Any) -> None:
    assert RunFolder(write_run(tmp_path / "old", end=None)).state == "ended", "it reached its total"


def test_folders_are_searched_in_natural_order_and_each_run_is_found_once(
    tmp_path: Path, write_run: Any
) -> None:
    for name in ("10", "9", "1"):
        write_run(tmp_path / "digits" / "sweep" / name)
    (tmp_path / "digits" / "sweep" / "multirun.yaml").write_text("")
    write_run(tmp_path / "grid" / "a")
    write_run(tmp_path / "grid" / "a" / "checkpoints" / "inside")
    refused = tmp_path / "digits" / "sweep" / "2"
    refused.mkdir()
    (refused / "overrides.yaml").write_text("[loss=hinge, optimizer.lr=-1]")
    (refused / "failure.txt").write_text("Invalid learning rate: -1\n")
    found = find_runs([tmp_path, tmp_path / "digits" / "sweep" / "9"])
    assert [run.path.name for run in found] == ["1", "2", "9", "10", "a"]
    assert [run.sweep is not None for run in found] == [True, True, True, True, False]
    assert found[1].ending == ("failed", "Invalid learning rate: -1")
    assert found[1].settings == {"loss": "hinge", "optimizer.lr": -1}
    assert found[0].name == "digits/sweep/1"
    assert found[4].name == "grid/a"


def test_a_part_is_named_by_its_class() -> None:
    config = {
        "a": {"_target_": "x.y_z.YZ", "p": 1, "_partial_": True},
        "b": {},
        "c": {"_target_": "torch.optim.Adam"},
    }
    assert flat(config) == {"a": "y_z", "a.p": 1, "b": {}, "c": "optim.Adam"}


def test_what_differs_is_named_once(tmp_path: Path, write_run: Any) -> None:
    folders = [
        write_run(tmp_path / f"{i}", seed=i, loss=loss) for i, loss in enumerate(("hinge.Hinge", "ns.NS"))
    ]
    assert differing([RunFolder(folder) for folder in folders]) == ["loss", "seed"], "and not game.loss"


def test_seeds_make_groups_and_settings_their_names(tmp_path: Path, write_run: Any) -> None:
    rates, losses = (1e-3, 1e-4), ("hinge.Hinge", "wasserstein.Wasserstein")
    found = [
        RunFolder(
            write_run(
                tmp_path / f"{lr}{loss}{seed}", seed=seed, lr=lr, loss=loss, settings={"logger": {"x": seed}}
            )
        )
        for lr in rates
        for loss in losses
        for seed in range(3)
    ]
    random.Random(0).shuffle(found)
    groups = dict(grouped(found))
    assert sorted(map(len, groups.values())) == [3] * 4
    assert "loss=hinge, optimizer.generator.lr=0.0001" in groups
    assert {run.config["seed"] for run in groups["loss=hinge, optimizer.generator.lr=0.0001"]} == {0, 1, 2}


def test_trials_of_a_search(tmp_path: Path) -> None:
    trial = {
        "number": 0,
        "state": "complete",
        "params": {"lr": 0.1},
        "values": [3.0],
        "folders": ["0"],
        "error": None,
    }
    content = {
        "study": "s",
        "sampler": "TPE",
        "metrics": ["fid"],
        "directions": ["minimize"],
        "trials": [trial],
    }
    (tmp_path / "trials.json").write_text(json.dumps(content))
    search = read_search(tmp_path)
    assert search is not None
    assert search.trials[0].params == {"lr": 0.1}
    assert search.trials[0].values == [3.0]
    (tmp_path / "trials.json").write_text(json.dumps(content)[:-5])
    assert read_search(tmp_path) is None
    assert read_search(tmp_path / "nowhere") is None


def test_curves_come_from_wandb_where_there_is_no_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run's second file goes on where the first one was left."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for start, values in ((0, {1: 9.0, 2: 8.0, 3: 99.0}), (2, {3: 7.0, 4: 6.0})):
        settings = wandb.Settings(silent=True, console="off", x_disable_meta=True, x_disable_stats=True)
        run = wandb.init(mode="offline", project="p", dir=str(tmp_path), id="abc", settings=settings)
        for kimg, value in values.items():
            run.log({"kimg": float(kimg), "val/fid": value}, step=1000 * kimg)
        run.finish()
        time.sleep(1.1 if start == 0 else 0)  # W&B names its folders by the second
    curve = RunFolder(tmp_path).curves["val/fid"]
    assert (list(curve.kimg), list(curve.values)) == ([1.0, 2.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0])
