"""Mistakes in what is typed: each is refused in one message that names the value, the key and the way out."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest

Words = tuple[str, ...]

MISTYPED: list[tuple[Words, Words]] = [
    (("totl_kimg=1",), ("'totl_kimg'", "did you mean 'total_kimg'?")),
    (("callbacks.checkpoint.evry_kimg=1",), ("did you mean 'callbacks.checkpoint.every_kimg'?",)),
    (("penalty=[r1]", "penalty.r1.gama=1"), ("'penalty.r1.gama'", "did you mean 'penalty.r1.gamma'?")),
    (("penalty.r1.gamma=1",), ("'penalty.r1.gamma'", "penalty=[r1] adds that part")),
    (("gamma=1", "penalty=[r1]"), ("did you mean 'penalty.r1.gamma'?",)),
    (("lr=0.1",), ("did you mean 'optimizer.generator.lr'?",)),
    (("lss=hinge",), ("'lss'", "did you mean 'loss'?")),
    (("hydra.run.dri=x",), ("did you mean 'hydra.run.dir'?",)),
    (("data.root=x",), ("'data.root'", "data has image_size, channels, num_classes")),
    (("~foo",), ("'foo'",)),
    (("~seed",), ("~seed", "seed=VALUE")),
    (("~held_out",), ("~held_out", "held_out=VALUE")),
    (("+new=1",), ("'new'", "ganforge train --help")),
    (("+optimiser=adam",), ("'optimiser'", "did you mean 'optimizer'?")),
    (("+ema.foo=1",), ("'ema.foo'", "half_life_kimg, ramp_up")),
    (("+loss.foo=1",), ("loss.foo", "ganforge.losses.hinge.Hinge has no settings")),
    (("+optimizer.generator.learning_rate=1",), ("optimizer.generator.learning_rate", "Adam takes", " lr,")),
    (("+model.generator.widht=1",), ("model.generator.widht", "did you mean 'width'?")),
    (("+callbacks.samples.colums=1",), ("callbacks.samples.colums", "did you mean 'columns'?")),
    (("+trainer.max_steps=3",), ("trainer.max_steps", "precision", "total_kimg=...")),
]

UNKNOWN_OPTIONS: list[tuple[Words, Words]] = [
    (("loss=hing",), ("loss=hing", "wasserstein", "did you mean 'hinge'?")),
    (("data=digit",), ("data=digit", "image_folder", "did you mean 'digits'?")),
    (("model=dcgn",), ("model=dcgn", "sngan", "did you mean 'dcgan'?")),
    (("penalty=[r1,r3]",), ("penalty=r3", "gradient_penalty")),
    (("logger=[csv,foo]",), ("logger=foo", "tensorboard")),
    (("experiment=grd",), ("experiment=grd", "grid_gan")),
    (("experiment=null",), ("experiment=null", "grid_gan", "~experiment")),
    (("model=3",), ("model=3", "sngan")),
    (("loss=",), ("wasserstein",)),
]

WRONG_TYPES: list[tuple[Words, Words]] = [
    (("batch_size=abc",), ("batch_size=abc", "whole number")),
    (("batch_size=2.5",), ("batch_size=2.5", "whole number")),
    (("conditional=maybe",), ("conditional=maybe", "true or false")),
    (("clip_norm.generator=big",), ("clip_norm.generator=big", "a number")),
    (("optimizer.generator.lr=fast",), ("optimizer.generator.lr=fast", "number")),
    (("callbacks.checkpoint.every_kimg=often",), ("callbacks.checkpoint.every_kimg=often", "number")),
    (
        ("callbacks.health.checks.mode_collapse.action=panic",),
        ("callbacks.health.checks.mode_collapse.action=panic", "'rollback'"),
    ),
    (("model.generator.width=wide",), ("model.generator.width=wide", "integer")),
    (("data.image_size=abc",), ("data.image_size=abc", "integer")),
    (("tags=a",), ("tags=a is not a list", "tags=[a]")),
    (("ema=3",), ("ema=3", "ema.KEY=...")),
    (("name=a,b",), ("name=a,b", "-m", "name=[a,b]")),
]

WRONG_VALUES: list[tuple[Words, Words]] = [
    (("total_kimg=-1",), ("total_kimg=-1", "greater than 0")),
    (("total_kimg=0",), ("total_kimg=0", "greater than 0")),
    (("total_kimg=nan",), ("total_kimg=nan", "finite")),
    (("total_kimg=inf",), ("total_kimg=inf", "finite")),
    (("batch_size=0",), ("batch_size=0", "greater than 0")),
    (("workers=-1",), ("workers=-1", "at least 0")),
    (("discriminator_steps=0",), ("discriminator_steps=0", "at least 1")),
    (("accumulate=5",), ("batch_size=32", "accumulate=5")),
    (("ema.half_life_kimg=-1",), ("ema.half_life_kimg=-1", "at least 0")),
    (("optimizer.generator.lr=-1",), ("optimizer.generator", "learning rate: -1")),
    (("callbacks.checkpoint.every_kimg=-1",), ("callbacks.checkpoint: every_kimg=-1", "at least 0")),
    (
        ("callbacks.health.checks.throughput.action=rollback",),
        ("callbacks.health.checks.throughput: action=rollback", "warn or stop"),
    ),
    (
        ("callbacks.health.checks.nonfinite.action=rollback", "callbacks.health.learning_rate_factor=1"),
        ("callbacks.health: learning_rate_factor=1", "new_seed=true"),
    ),
    (("trainer.precision=16-mixed",), ("trainer.precision=16-mixed", "bf16-mixed")),
    (("trainer.precision=bf16-true",), ("trainer.precision=bf16-true", "bf16-mixed")),
    (("trainer.precision=abc",), ("trainer.precision=abc", "32-true")),
    (("trainer.devices=0",), ("trainer.devices=0", "from 1 up", "auto")),
    (("trainer.devices=3",), ("batch_size=32", "3 processes", "batch_size=30 or 33")),
    (("trainer.devices=2", "accumulate=32"), ("batch_size=32", "accumulate=32", "batch_size=64")),
    (
        ("trainer=ddp", "trainer.timeout_seconds=1e20"),
        ("trainer.timeout_seconds=1e+20", "at most 2592000 (30 days)"),
    ),
    (
        ("data=gaussian_ring", "model=mlp", "fast.channels_last=true"),
        ("fast.channels_last=true", "holds vectors"),
    ),
    (("trainer=ddp", "trainer.num_nodes=2"), ("trainer.num_nodes=2", "torchrun --nnodes 2")),
    (("trainer=ddp", "trainer.timeout_seconds=-1"), ("trainer.timeout_seconds=-1", "greater than 0")),
    (("trainer.accelerator=quantum",), ("trainer.accelerator=quantum", "cpu", "auto")),
    (
        ("model=dcgan", "penalty=[gradient_penalty]", "model.discriminator.norm=batch"),
        ("batch norm", "model.discriminator.norm=none"),
    ),
    (("loss._target_=nowhere.Loss",), ("loss._target_=nowhere.Loss", "No module named 'nowhere'")),
    (("loss._target_=ganforge.losses.hinge.Hing",), ("loss._target_=", "did you mean 'Hinge'?")),
    (("~loss",), ("loss=... is needed",)),
]

MALFORMED: list[tuple[Words, Words]] = [
    (("=5",), ("KEY=VALUE",)),
    (("loss",), ("'loss'", "KEY=VALUE")),
    (("seed=${batch_size",), ("'seed=${batch_size'", "KEY=VALUE")),
    (("--lr=0.1",), ("'--lr'", "without dashes", "lr=...")),
]


@pytest.mark.parametrize(
    ("words", "parts"),
    [*MISTYPED, *UNKNOWN_OPTIONS, *WRONG_TYPES, *WRONG_VALUES, *MALFORMED],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_refused_before_anything_starts(
    words: Words, parts: Words, train: Any, tmp_path: Path
) -> None:
    train(*words, "hydra.run.dir=folder").refuses(*parts)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_a_device_that_is_not_there(accelerator: str, train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    words = f"trainer.accelerator={accelerator}"
    train(words).refuses(words, "is not on this machine", "trainer.accelerator=auto")


def test_more_devices_than_there_are(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    words = ("trainer.accelerator=gpu", "trainer.devices=2")
    train(*words).refuses("trainer.devices=2", "this machine has 1 GPUs", "trainer.devices=auto")


def test_an_unknown_command(ganforge: Any) -> None:
    ganforge("tran").refuses("'tran'", "train, evaluate, sample", "did you mean 'train'?")
    word = "".join(random.choices(string.ascii_lowercase, k=12))
    ganforge(word, "loss=hinge").refuses(repr(word), "train, evaluate, sample")


@pytest.mark.parametrize("length", ["1e3", "1_000", "0.5"])
def test_a_length_may_be_written_in_any_way(length: str, ganforge: Any) -> None:
    outcome = ganforge("train", f"total_kimg={length}", "--cfg", "job", "seed=7")
    assert outcome.code == 0, outcome.err
    assert f"total_kimg: {float(length)}" in outcome.out
    assert "seed: 7" in outcome.out  # an override after a flag


def test_a_critic_that_nothing_bounds_is_warned_of(train: Any, tmp_path: Path) -> None:
    outcome = train("loss=wasserstein", "hydra.run.dir=folder")
    assert outcome.code == 0, outcome.err
    (warning,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert "penalty=[gradient_penalty]" in warning
    assert (tmp_path / "folder" / "checkpoints" / "last.ckpt").exists()


def test_a_critic_that_is_bounded_is_not_warned_of(train: Any) -> None:
    penalty = random.choice(["gradient_penalty", "weight_clipping", "r1", "dragan"])
    outcome = train("loss=wasserstein", f"penalty=[{penalty}]")
    assert outcome.code == 0, outcome.err
    assert "warning" not in outcome.err


def test_a_folder_that_cannot_be_written(train: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    train("hydra.run.dir=file/run").refuses("file/run", "hydra.run.dir=...")


def test_a_folder_that_holds_a_run(train: Any, run: Path) -> None:
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    train(f"hydra.run.dir={run}").refuses(f"{run} already holds a run", f"resume={run}", "hydra.run.dir=...")
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_sweep_goes_on_after_a_job_that_is_refused(train: Any, tmp_path: Path) -> None:
    outcome = train("accumulate=5,1", "-m", "hydra.sweep.dir=sweep")
    assert outcome.code == 2
    assert "error: job 0: batch_size=32" in outcome.err
    assert "Traceback" not in outcome.err
    refused = tmp_path / "sweep" / "0"  # what a report needs to show the job as failed, and no more
    assert {path.name for path in refused.iterdir()} == {"failure.txt", "overrides.yaml"}
    assert "batch_size=32" in (refused / "failure.txt").read_text()
    assert (tmp_path / "sweep" / "1" / "checkpoints" / "last.ckpt").exists()


def test_a_sweep_with_a_mistake_in_it_does_not_start(train: Any, tmp_path: Path) -> None:
    train("-m", "loss=hinge,hing", "hydra.sweep.dir=sweep").refuses("loss=hing", "did you mean 'hinge'?")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("tran",), ("'tran'", "did you mean 'train'?")),
        (("train", "totl_kimg=1"), ("'totl_kimg'", "did you mean 'total_kimg'?")),
        (("train", "optimizer.generator.lr=fast"), ("optimizer.generator.lr=fast", "number")),
    ],
    ids=lambda value: " ".join(value),
)
def test_as_typed(words: Words, parts: Words, typed: Any, tmp_path: Path) -> None:
    outcome = typed(*words)
    outcome.refuses(*parts)
    assert outcome.out == ""
    assert not list(tmp_path.rglob("*.ckpt"))
