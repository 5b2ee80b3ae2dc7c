"""Checkpoints and runs that cannot be used: resume, sample and evaluate say why, and run no code out of them."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


@pytest.fixture
def forged(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint whose configuration has another node at a dotted key."""

    def forge(key: str, node: Any) -> Path:
        state = copy.deepcopy(torch.load(last(trained), weights_only=True))
        *parents, leaf = key.split(".")
        config = state["ganforge"]["config"]
        for name in parents:
            config = config[name]
        config[leaf] = node
        path = tmp_path / "forged.ckpt"
        torch.save(state, path)
        return path

    return forge


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_resuming_a_folder_that_is_not_a_run(name: str, ganforge: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ganforge("train", f"resume={name}").refuses(f"resume={name}", "config.yaml", "outputs/digits/DATE_TIME")
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    ("word", "difference"),
    [
        ("model=mlp", "game.generator._target_ is 'ganforge.networks.dcgan.Generator' there"),
        ("loss=minimax", "game.loss._target_"),
        ("model.generator.width=16", "game.generator.width is 8 there and 16 here"),
        ("seed=4", "seed is 0 there and 4 here"),
        ("batch_size=16", "batch_size is 32 there and 16 here"),
    ],
)
def test_resuming_otherwise_than_it_was_trained(word: str, difference: str, ganforge: Any, run: Path) -> None:
    before = last(run).read_bytes(), (run / "config.yaml").read_bytes()
    ganforge("train", f"resume={run}", word, "total_kimg=0.128").refuses(str(last(run)), difference)
    assert (last(run).read_bytes(), (run / "config.yaml").read_bytes()) == before


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: random.randrange(1, len(content) - 1)])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("{'a': 1}")
    else:
        torch.save({"weights": torch.zeros(2)}, path)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "foreign"])
def test_a_damaged_checkpoint(how: str, ganforge: Any, run: Path) -> None:
    damage(last(run), how)
    ganforge("train", f"resume={run}", "total_kimg=0.128").refuses(str(last(run)), "start a new run")
    ganforge("sample", f"checkpoint={run}").refuses(str(last(run)), "not a whole ganforge checkpoint")
    ganforge("evaluate", f"checkpoint={last(run)}").refuses(str(last(run)), "not a whole ganforge checkpoint")
    assert not (run / "generated").exists()


def test_a_damaged_last_checkpoint_beside_a_good_one(ganforge: Any, run: Path) -> None:
    last(run).with_name("best.ckpt").write_bytes(last(run).read_bytes())
    damage(last(run), "cut")
    ganforge("train", f"resume={run}", "total_kimg=0.128").refuses("best.ckpt", "copy")


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_checkpoint_that_is_not_there(command: str, ganforge: Any, tmp_path: Path) -> None:
    ganforge(command).refuses(
        "checkpoint=... is needed" if command == "sample" else "checkpoint=RUN or generated="
    )
    ganforge(command, "checkpoint=nowhere").refuses("checkpoint=nowhere does not exist")
    (tmp_path / "empty").mkdir()
    ganforge(command, "checkpoint=empty").refuses("checkpoint=empty", "last.ckpt")
    ganforge(command, "checkpint=x").refuses("did you mean 'checkpoint'?")
    ganforge(command, "checkpoint=x", "+new=1").refuses("'new'")
    ganforge(command, "x.ckpt").refuses("'x.ckpt'", "KEY=VALUE")


def test_what_sample_cannot_do(ganforge: Any, run: Path) -> None:
    def refuses(word: str, *parts: str) -> None:
        ganforge("sample", f"checkpoint={run}", word).refuses(*parts)

    label = random.choice([-1, 10, 11, 1000])
    refuses(f"labels=[0,{label}]", f"labels=[0, {label}]", "0 to 9")
    refuses("labels=[]", "labels=[]", "0 to 9")
    refuses("labels=3", "labels=3 is not a list", "labels=[3]")
    refuses("labels=[a]", "labels[0]=a", "whole number")
    refuses("num=0", "num=0", "at least 1")
    refuses("batch_size=0", "batch_size=0", "at least 1")
    refuses("device=quantum", "device=quantum", "cuda")
    refuses(f"out={last(run)}/below", f"{last(run)}/below", "out=...")
    assert not (run / "generated").exists()


def test_what_evaluate_cannot_do(ganforge: Any, run: Path) -> None:
    def refuses(word: str, *parts: str) -> None:
        ganforge("evaluate", f"checkpoint={run}", word).refuses(*parts)

    refuses("seed=0", "metrics=none", "metrics=digits")  # what the run was trained with
    refuses("metrics=digit", "metrics=digit", "did you mean 'digits'?")
    refuses("num_samples=1", "num_samples=1", "at least 4")
    refuses("batch_size=0", "batch_size=0", "at least 1")
    outcome = ganforge("evaluate", f"checkpoint={run}", "metrics=digits", f"out={last(run)}/below/x.json")
    outcome.refuses(f"{last(run)}/below", "out=...")
    assert outcome.out == ""  # known before the scores are made


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_device_that_is_not_there(command: str, ganforge: Any, run: Path) -> None:
    ganforge(command, f"checkpoint={run}", "device=cuda").refuses("device=cuda", "device=cpu")


class Payload:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("target", ["os.system", "torch.load", "ganforge.networks.dcgan.torch.load"])
@pytest.mark.parametrize("key", ["game", "game.loss", "game.penalties"])
def test_code_named_by_the_configuration_is_refused(
    target: str, key: str, ganforge: Any, forged: Any, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    node = {"_target_": target, ("command" if target == "os.system" else "f"): f"touch {mark}"}
    path = forged(key, [node] if key == "game.penalties" else node)
    for command in ("sample", "evaluate") if key == "game.loss" else ("sample",):
        outcome = ganforge(command, f"checkpoint={path}")
        outcome.refuses(repr(target), key, "nothing of it was run")
        assert ("trust=" in outcome.err) == (not target.startswith("ganforge."))
    assert not mark.exists()


@pytest.mark.parametrize("key", ["metrics", "data"])
def test_code_beside_the_game_is_refused(key: str, ganforge: Any, forged: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = forged(key, {"_target_": "os.system", "command": f"touch {mark}"})
    words = ["metrics=digits"] if key == "data" else []
    ganforge("evaluate", f"checkpoint={path}", *words).refuses("'os.system'", key, "trust=[os]")
    assert not mark.exists()


def test_trust_goes_no_further_than_the_package(ganforge: Any, forged: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "other_losses.py").write_text("import os\nfrom ganforge.losses.hinge import Hinge\n")
    path = forged("game.loss", {"_target_": "other_losses.os.system", "command": f"touch {mark}"})
    ganforge("sample", f"checkpoint={path}", "trust=[other_losses]").refuses("'other_losses.os.system'")
    assert not mark.exists()


def test_a_part_of_the_users_own_is_taken_at_a_word(ganforge: Any, forged: Any, tmp_path: Path) -> None:
    code = "from ganforge.losses.hinge import Hinge\nclass Mine(Hinge):\n    pass\n"
    (tmp_path / "my_losses.py").write_text(code)
    path = forged("game.loss", {"_target_": "my_losses.Mine"})
    ganforge("sample", f"checkpoint={path}").refuses("'my_losses.Mine'", "trust=[my_losses]")
    assert ganforge("sample", f"checkpoint={path}", "trust=[my_losses]", "num=2").code == 0


def test_a_pickle_with_code_in_it_is_not_run(ganforge: Any, typed: Any, run: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    state = torch.load(last(run), weights_only=True)
    torch.save({**state, "extra": Payload(f"touch {mark}")}, last(run))
    ganforge("evaluate", f"checkpoint={run}").refuses("code", "system", "not run")
    ganforge("train", f"resume={run}", "total_kimg=0.128").refuses("code", "system", "not run")
    typed("sample", f"checkpoint={run}").refuses("code", "system", "not run")
    assert not mark.exists()
    torch.load(last(run), weights_only=False)  # the same file, read without care
    assert mark.exists()
