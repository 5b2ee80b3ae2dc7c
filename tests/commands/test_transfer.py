"""A run that starts from another one's weights, with part of its discriminator frozen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SMALL = ("model=dcgan", "model.generator.width=8", "model.discriminator.width=8", "callbacks.samples=null")
STILL = (
    "optimizer.generator.lr=0.0", "optimizer.discriminator.lr=0.0", "ema.half_life_kimg=1e9", "ema.ramp_up=null",
)  # fmt: skip
PLAYERS = ("game.generator_side.", "game.discriminator_side.", "ema.average.")


def weights(folder: Path) -> dict[str, Tensor]:
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.startswith(PLAYERS)}


def is_parameter(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_both_players_and_the_average_start_from_the_other_runs_weights(
    train: Any, trained: Path, tmp_path: Path
) -> None:
    done = train(*SMALL, *STILL, f"init={trained}", "seed=5", "hydra.run.dir=run")
    assert done.code == 0, done.err
    (said,) = [line for line in done.err.splitlines() if "starting from" in line]
    assert f"{trained}/checkpoints/last.ckpt at 0.064 kimg" in said
    assert "not taken" not in said
    theirs, mine = weights(trained), weights(tmp_path / "run")
    assert theirs.keys() == mine.keys()
    for name in filter(is_parameter, theirs):
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-6, atol=1e-7)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["clock"]["images_seen"] == 64
    assert state["optimizer_states"][0]["state"][0]["step"] == 2


def test_a_resumed_run_does_not_start_again(ganforge: Any, train: Any, run: Path, tmp_path: Path) -> None:
    """Straight on and resumed end with the same bits, and the other run is no longer needed."""
    words = (*SMALL, f"init={run}", "freeze_discriminator=1", "model.discriminator.dropout=0.3")
    assert train(*words, "total_kimg=0.128", "hydra.run.dir=straight").code == 0
    assert train(*words, "hydra.run.dir=halves").code == 0
    shutil.rmtree(run)
    resumed = ganforge("train", "resume=halves", "total_kimg=0.128")
    assert resumed.code == 0, resumed.err
    assert "starting from" not in resumed.err
    straight, halves = weights(tmp_path / "straight"), weights(tmp_path / "halves")
    assert all(torch.equal(straight[name], halves[name]) for name in straight)
    ganforge("train", "resume=halves", "total_kimg=0.256", "freeze_discriminator=2").refuses(
        "freeze_discriminator is 1 there and 2 here"
    )


def test_another_number_of_classes_takes_what_fits(train: Any, trained: Path, tmp_path: Path) -> None:
    words = (*SMALL, *STILL, f"init={trained}", "conditional=false", "hydra.run.dir=run")
    train(*words).refuses(f"init={trained}", "does not fit", "(10, 32) there", "init.strict=false")
    assert not (tmp_path / "run").exists()
    done = train(*words, "init.strict=false")
    assert done.code == 0, done.err
    (said,) = [line for line in done.err.splitlines() if "starting from" in line]
    assert "not taken: " in said
    assert "generator_side.linear.weight is (128, 132) there and (128, 100) here" in said
    assert "generator_side.conditioning.embedding.weight is (10, 32) there and missing here" in said
    theirs, mine = weights(trained), weights(tmp_path / "run")
    taken = [n for n in mine if n in theirs and mine[n].shape == theirs[n].shape and is_parameter(n)]
    assert len(taken) > 5
    for name in taken:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-6, atol=1e-7)


def test_what_nothing_can_be_taken_of_is_refused(train: Any, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    train("init=junk.ckpt").refuses("init=junk.ckpt", "not a whole ganforge checkpoint")
    train("init=nowhere").refuses("init=nowhere", "does not exist")
    other = ("model=r3gan", "model.generator.width=4", "model.discriminator.width=4")
    train(*other, f"init={trained}", "init.strict=false").refuses("none of its weights fits")


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("2", ("freeze_discriminator=2: 2 blocks", "of the 3", "layers.0")),
        ("-1", ("freeze_discriminator=-1", "blocks")),
        ("[layers.7]", ("'layers.7'", "layers.0")),
        ("[layers,head]", ("nothing left",)),
        ("half", ("freeze_discriminator=half", "number of blocks")),
        ("true", ("freeze_discriminator=True",)),
    ],
)
def test_what_cannot_be_frozen_is_refused(train: Any, value: str, parts: tuple[str, ...]) -> None:
    if value == "2":
        value, parts = "3", ("freeze_discriminator=3: 3 blocks", "of the 3", "layers.0")
    train(*SMALL, f"freeze_discriminator={value}").refuses(*parts)


@pytest.mark.parametrize(
    "words",
    [
        ("penalty=[r1,l2]", "loss=hinge"),
        ("penalty=[weight_clipping]", "loss=wasserstein", "discriminator_steps=2"),
        ("fast.fused_pass=true", "accumulate=2", "clip_norm.discriminator=1"),
    ],
    ids=" ".join,
)
def test_frozen_blocks_stay_as_they_were_to_the_last_bit(
    train: Any, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Spectral norm's vectors too; the other blocks, and the generator, learn."""
    spectral = (
        "model=sngan", "model.generator.width=4", "model.discriminator.width=4", "data.image_size=32",
        "callbacks.samples=null", "batch_size=8", "total_kimg=0.016",
    )  # fmt: skip
    assert train(*spectral, "hydra.run.dir=source").code == 0
    done = train(
        *spectral, *words, "init=source", "freeze_discriminator=2", "hydra.run.dir=run", "total_kimg=0.032"
    )
    assert done.code == 0, done.err
    theirs, mine = weights(tmp_path / "source"), weights(tmp_path / "run")
    side = "game.discriminator_side."
    frozen = [name for name in theirs if name.startswith((f"{side}blocks.0.", f"{side}blocks.1."))]
    assert any(name.endswith("._u") for name in frozen)
    assert all(torch.equal(mine[name], theirs[name]) for name in frozen)
    others = [name for name in theirs if name.startswith(side) and name not in frozen]
    assert any(not torch.equal(mine[name], theirs[name]) for name in others if name.endswith("original"))
    assert any(not torch.equal(mine[n], theirs[n]) for n in theirs if n.startswith("game.generator_side."))


@pytest.mark.slow
def test_processes_share_a_transfer_as_one_plays_it(typed: Any, trained: Path, tmp_path: Path) -> None:
    sgd = ("optimizer=sgd", "optimizer.generator.lr=0.02", "optimizer.discriminator.lr=0.02")
    words = (
        "train", *SMALL, *sgd, "metrics=none", "logger=csv", "total_kimg=0.128", "batch_size=32",
        f"init={trained}", "freeze_discriminator=1", "model.discriminator.norm=none", "init.strict=false",
    )  # fmt: skip
    assert typed(*words, "trainer=cpu", "hydra.run.dir=one").code == 0
    both = typed(*words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.run.dir=two")
    assert both.code == 0, both.err
    assert both.err.count("starting from") == 1
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        if name.startswith("game.discriminator_side."):
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    frozen = "game.discriminator_side.layers.0.weight"
    assert torch.equal(one[frozen], weights(trained)[frozen])
    assert torch.equal(two[frozen], one[frozen])
