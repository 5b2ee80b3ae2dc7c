"""Every game of conf/game through the commands: trained, stopped and resumed, sampled and evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

CONF = Path(__file__).parents[2] / "conf"
GAMES = sorted(path.stem for path in (CONF / "game").glob("*.yaml"))

pytestmark = pytest.mark.slow

TINY = [
    "trainer=cpu",
    "metrics=none",
    "logger=csv",
    "batch_size=8",
    "workers=0",
    "callbacks.samples.every_kimg=0",
]
TINY += [f"callbacks.samples.{name}=2" for name in ("rows", "columns")]
TINY += [f"model.{side}.width=8" for side in ("generator", "discriminator")]


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


def words(game: str) -> list[str]:
    own = ["game.discriminator.width=8"] if game in ("began", "ebgan") else []
    return ["train", f"game={game}", *TINY, *own, "accumulate=2", "discriminator_steps=2"]


@pytest.mark.parametrize("game", GAMES)
def test_a_checkpoint_draws_what_training_shows(game: str, ganforge: Any, tmp_path: Path) -> None:
    assert ganforge(*words(game), "total_kimg=0.048", "hydra.run.dir=run").code == 0
    assert ganforge("sample", "checkpoint=run", "num=4", "out=fakes", "device=cpu").code == 0
    shown = {path.stem.partition("_kimg_")[2] for path in (tmp_path / "run" / "samples").glob("*_kimg_*.png")}
    assert shown | {"0", "1", "2", "3", "grid"} == {path.stem for path in (tmp_path / "fakes").glob("*.png")}


@pytest.mark.parametrize("game", ["began", "bigan"])
def test_resumed_equals_uninterrupted_and_is_evaluated(game: str, ganforge: Any, tmp_path: Path) -> None:
    assert ganforge(*words(game), "total_kimg=0.096", "hydra.run.dir=whole").code == 0
    assert ganforge(*words(game), "total_kimg=0.048", "hydra.run.dir=part").code == 0
    assert ganforge("train", "resume=part", "total_kimg=0.096").code == 0
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "part")
    assert whole["clock"] == resumed["clock"]
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    measured = ["metrics=digits", "num_samples=64", "device=cpu", "out=scores.json"]
    assert ganforge("evaluate", "checkpoint=part", *measured).code == 0
    assert "fid" in json.loads((tmp_path / "scores.json").read_text())["scores"]
