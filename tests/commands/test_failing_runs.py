"""Runs that end early: by NaN, by a full disk, by a signal. What is good stays, and the message says how to go on."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

LOSS = """
from ganforge.losses.hinge import Hinge

class Diverging(Hinge):
    updates = 0

    def {side}_loss(self, real_logits, fake_logits):
        Diverging.updates += 1
        loss = super().{side}_loss(real_logits, fake_logits)
        return loss * float("nan") if Diverging.updates > 6 else loss
"""


def finite_checkpoint(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    assert state["state_dict"]
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
    return state


@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_a_loss_that_becomes_nan_ends_the_run(side: str, train: Any, tmp_path: Path) -> None:
    (tmp_path / f"diverging_{side}.py").write_text(LOSS.format(side=side))
    outcome = train(
        f"loss._target_=diverging_{side}.Diverging",
        "total_kimg=1.28",
        "callbacks.checkpoint.every_kimg=0.064",
        "callbacks.log.every_kimg=0.032",
        "hydra.run.dir=folder",
    )
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    message = outcome.err.splitlines()[-1]
    assert message.startswith(f"ganforge: train/{side}/adversarial became nan")
    assert "last.ckpt in" in message
    assert "learning rate" in message
    assert (tmp_path / "folder" / "failure.txt").read_text() == message.removeprefix("ganforge: ") + "\n"
    state = finite_checkpoint(tmp_path / "folder" / "checkpoints" / "last.ckpt")
    assert state["clock"]["images_seen"] == 192  # six updates of 32


@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_a_learning_rate_that_is_far_too_high_ends_the_run(side: str, train: Any, tmp_path: Path) -> None:
    outcome = train(f"optimizer.{side}.lr=1e30", "total_kimg=1.28", "hydra.run.dir=folder")
    assert outcome.code == 1
    assert re.search(r"ganforge: .*(became|nan|NaN).*no checkpoint yet", outcome.err.splitlines()[-1])
    assert (tmp_path / "folder" / "failure.txt").exists()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_disk_that_fails_ends_the_run(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "last.ckpt")

    monkeypatch.setattr("ganforge.training.checkpoint_file.torch.save", full)
    outcome = train("hydra.run.dir=folder")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    message = outcome.err.splitlines()[-1]
    assert "No space left on device" in message
    assert f"ganforge train resume={tmp_path / 'folder'}" in message
    assert "No space left" in (tmp_path / "folder" / "failure.txt").read_text()


INTERRUPTING = """
import signal
from ganforge.losses.hinge import Hinge

class Interrupting(Hinge):
    updates = 0

    def discriminator_loss(self, real_logits, fake_logits):
        Interrupting.updates += 1
        if Interrupting.updates == 3:
            signal.raise_signal(signal.SIGINT)
        return super().discriminator_loss(real_logits, fake_logits)
"""


def goes_on_as_told(ganforge: Any, message: str, name: str, folder: Path) -> int:
    """Asserts that the message's own command resumes what the signal stopped; returns the images seen before it."""
    found = re.search(rf"stopped by {name} at ([\d.]+) kimg; go on with: ganforge (.*)$", message)
    assert found, message
    assert found.group(0) in (folder / "failure.txt").read_text()
    path = folder / "checkpoints" / "last.ckpt"
    seen: int = finite_checkpoint(path)["clock"]["images_seen"]
    assert seen == pytest.approx(1000 * float(found.group(1)), rel=1e-5)
    assert seen % 32 == 0
    outcome = ganforge(*shlex.split(found.group(2)), f"total_kimg={(seen + 64) / 1000}")
    assert outcome.code == 0, outcome.err
    assert not (folder / "failure.txt").exists()
    assert finite_checkpoint(path)["clock"]["images_seen"] == seen + 64
    return seen


def test_an_interrupt_ends_the_run_after_its_round(train: Any, ganforge: Any, tmp_path: Path) -> None:
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    folder = tmp_path / "a folder"
    before = signal.getsignal(signal.SIGINT)
    outcome = train("loss._target_=interrupting.Interrupting", "total_kimg=3.2", f"hydra.run.dir='{folder}'")
    assert outcome.code == 130, outcome.err
    assert "Traceback" not in outcome.err
    assert signal.getsignal(signal.SIGINT) is before
    assert goes_on_as_told(ganforge, outcome.err.splitlines()[-1], "SIGINT", folder) == 3 * 32


def test_an_interrupt_ends_the_sweep(train: Any, tmp_path: Path) -> None:
    (tmp_path / "interrupting_once.py").write_text(INTERRUPTING)
    words = ("loss._target_=interrupting_once.Interrupting", "total_kimg=3.2", "hydra.sweep.dir=sweep")
    outcome = train(*words, "-m", "seed=0,1,2")
    assert outcome.code == 130, outcome.err
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()] == ["0"]


def test_sigterm_ends_a_process_after_its_round(ganforge: Any, started: Any, tmp_path: Path) -> None:
    words = ["total_kimg=1000000", "callbacks.log.every_kimg=0.032"]
    words += [f"callbacks.{name}.every_kimg=0" for name in ("checkpoint", "samples")]
    process = started(*words, f"hydra.run.dir={tmp_path / 'folder'}")
    for line in process.stderr:
        if "img/s" in line:  # it plays
            break
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert goes_on_as_told(ganforge, err.splitlines()[-1], "SIGTERM", tmp_path / "folder")
