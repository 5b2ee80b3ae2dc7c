"""Searches whose jobs really train: what they leave, what can be made of it, and where no password is to be found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch
import yaml

from ganforge.commands.run_folder import read_config

pytestmark = pytest.mark.slow

TINY = (
    "model=mlp",
    "metrics=digits",
    "metrics.compute=[fid]",
    "trainer=cpu",
    "batch_size=32",
    "total_kimg=0.256",
)
FEW = ("metrics.num_samples=64", "metrics.final_num_samples=64", "callbacks.samples=null")
PASSWORD = "s3cret/pass@word"


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> list[str]:
    """The study in a PostgreSQL that wants a password, where there is one."""
    try:
        return [f"sweep.storage={request.getfixturevalue('postgresql')}", "sweep.study=real"]
    except pytest.skip.Exception:
        return ["sweep.study=real"]


def test_a_search_from_the_command_line_to_the_best_run(
    storage: list[str], typed: Any, ganforge: Any, tmp_path: Path
) -> None:
    space = ["optimizer.generator.lr=tag(log,interval(1e-4,1e-2))", "loss=hinge,nonsaturating"]
    search = ["sweep=optuna", "sweep.n_trials=2", "sweep.n_jobs=2", *storage]
    outcome = typed("train", *search, *TINY, *FEW, *space, "logger.mode=offline")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "outputs" / "digits" / "real_sweep"
    found = json.loads((folder / "trials.json").read_text())
    assert (found["metrics"], found["directions"]) == (["fid"], ["minimize"])
    for trial in found["trials"]:
        run = folder / trial["folders"][0]
        config, overrides = read_config(run)
        assert config["optimizer"]["generator"]["lr"] == trial["params"]["optimizer.generator.lr"]
        assert f"loss={trial['params']['loss']}" in overrides
        assert not (run / "failure.txt").exists()
        assert [json.loads((run / "scores.json").read_text())["scores"]["fid"]] == trial["values"]
        assert trial["reports"][0][0] == 0.032  # each evaluation but the last
        assert f"[{trial['number']}] done: 0.256 kimg" in outcome.err
    _no_password(tmp_path, outcome)
    _best_trains(ganforge, folder, found)


def _no_password(tmp_path: Path, outcome: Any) -> None:
    """In no file, W&B's among them, and on no screen; written as it is, or as in a URL."""
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name == "run.json" for path in files)
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in outcome.out + outcome.err
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def _best_trains(ganforge: Any, folder: Path, found: dict[str, Any]) -> None:
    """The experiment that is left says what the best trial played, and can be built on."""
    best = min(found["trials"], key=lambda trial: trial["values"])
    words = ["--config-dir", str(folder), "experiment=best", "logger=csv", "total_kimg=0.064"]
    again = ganforge("train", *words, "hydra.run.dir=again")
    assert again.code == 0, again.err
    config, _ = read_config(Path("again"))
    played, _ = read_config(folder / best["folders"][0])
    for key in ("optimizer", "loss", "model", "metrics", "batch_size", "seed", "name"):
        assert config[key] == played[key]
    assert yaml.safe_load((folder / "experiment" / "best.yaml").read_text())["defaults"][0] == "digits"


def test_two_processes_of_one_trial_are_pruned_together(typed: Any, ganforge: Any, tmp_path: Path) -> None:
    """By the user's own pruner. The run is no failed one, and goes on where it was when it is resumed."""
    pruner = ["sweep.pruner._target_=optuna.pruners.ThresholdPruner", "+sweep.pruner.upper=1e-9"]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    words = ["-m", "sweep=optuna", "sweep.n_trials=1", *pruner, "seed=1,2", "hydra.sweep.dir=sweep"]
    outcome = typed("train", *TINY, *FEW, *ddp, *words, "logger=csv", "callbacks.evaluation.every_kimg=0.128")
    assert outcome.code == 1
    assert "no trial of the search came to its end" in outcome.err
    assert "2 processes share each batch" in outcome.err
    folder = tmp_path / "sweep" / "0"
    (trial,) = json.loads((tmp_path / "sweep" / "trials.json").read_text())["trials"]
    assert (trial["state"], trial["values"], trial["error"]) == ("pruned", None, None)
    assert not (folder / "failure.txt").exists()
    stopped = json.loads((folder / "scores.json").read_text())["stopped"]
    assert (stopped["reason"], stopped["kimg"]) == ("pruned", 0.128)
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["clock"]["images_seen"] == 128
    resumed = ganforge("train", f"resume={folder}", "trainer.devices=1", "trainer.accelerator=cpu")
    assert resumed.code == 0, resumed.err
    assert "done: 0.256 kimg" in resumed.err
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert left.stdout == ""
