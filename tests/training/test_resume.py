"""Killed and resumed equals uninterrupted, to the last bit, whatever the moment: real processes, real SIGKILL."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ganforge.datasets.image_folder import open_images
from ganforge.datasets.preparation import prepare

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BASE = [
    "train",
    "trainer=cpu",
    "metrics=none",
    "logger=csv",
    "model.generator.width=8",
    "model.discriminator.width=8",
    "callbacks.samples.every_kimg=0",
    "callbacks.samples.rows=2",
    "callbacks.samples.columns=2",
    "callbacks.log.every_kimg=0.128",
    "callbacks.checkpoint.every_kimg=0.128",
    "callbacks.health.every_kimg=0.128",
]
MLP = ["model=mlp", "batch_size=32"]
VARIANTS = {
    # Batch norm in both players, the learning rate's schedule, several discriminator steps and micro-batches.
    "dcgan": (
        1.024,
        [
            "model=dcgan",
            "loss=hinge",
            "batch_size=16",
            "discriminator_steps=2",
            "accumulate=2",
            "schedule=linear",
        ],
    ),
    # A lazy penalty's phase, a penalty with random numbers of its own, clipping, another optimizer; run for longer.
    "extended": (
        2.048,
        [
            *MLP,
            "loss=relativistic",
            "penalty=[r1,gradient_penalty]",
            "penalty.r1.every=4",
            "optimizer=rmsprop",
            "clip_norm.discriminator=1",
        ],
    ),
    # What an augmentation has learnt of the game.
    "adaptive": (
        1.024,
        [*MLP, "augment=ada", "augment.p=0.4", "augment.speed_kimg=2", "augment.every_kimg=0.06"],
    ),
    # Images decoded by workers ahead of time, and mirrored.
    "shards": (1.024, [*MLP, "data=streaming", "data.window=2", "data.flip=true", "workers=2"]),
    "streamed": (1.024, [*MLP, "data=image_folder", "data.memory_gb=0", "data.flip=true", "workers=2"]),
}

# Writes half of the checkpoint and dies, at the k-th of them.
DIES_WRITING = """
import io, os, signal, torch
save, left = torch.save, {k}
def half(state, file):
    global left
    left -= 1
    if left:
        return save(state, file)
    whole = io.BytesIO()
    save(state, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
"""

# Gets a signal in the middle of its ninth round, which has two of Adam's steps.
SIGNALS_ITSELF = """
import os, torch
adam, steps = torch.optim.Adam.step, 0
def step(self, closure=None):
    global steps
    steps += 1
    if steps == 17:
        os.kill(os.getpid(), {number})
    return adam(self, closure)
torch.optim.Adam.step = step
"""


@pytest.fixture(scope="module")
def bench() -> Any:
    """bench/resume.py, which starts, kills and compares."""
    spec = importlib.util.spec_from_file_location("bench_resume", ROOT / "bench" / "resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return module


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty pictures in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(50):
        pixels = torch.randint(256, (8, 8, 3), dtype=torch.uint8).numpy()
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def assert_same_state(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit, tensors and numbers alike."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_state(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same_state(*pair, f"{where}.{index}")
    else:
        assert one == other, where


def logged(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the machine's mood."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    moody = ("images_per_second", "memory_gb", "waiting")
    return [{key: value for key, value in row.items() if not key.endswith(moody)} for row in rows]


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_and_resumed_equals_uninterrupted(
    bench: Any, tmp_path: Path, pictures: Path, variant: str
) -> None:
    total_kimg, words = VARIANTS[variant]
    words = [*BASE, *words, f"seed={random.randrange(10**6)}"]
    if variant == "streamed":
        words.append(f"data.root={pictures}")
    if variant == "shards":  # of a few images each
        shards = tmp_path / "shards"
        images = open_images(pictures)
        prepare(images, shards, format="shards", workers=1, shard_bytes=12e3, skip_broken=False)
        assert len(list(shards.glob("*.tar"))) > 4
        words.append(f"data.path={shards}")
    log, whole, broken = tmp_path / "log.txt", tmp_path / "whole", tmp_path / "broken"
    begin = [*words, f"hydra.run.dir={broken}", f"total_kimg={total_kimg}"]
    resume = ["train", f"resume={broken}"]
    duration = bench.kill_after(
        300, [*words, f"hydra.run.dir={whole}", f"total_kimg={total_kimg}"], whole, log
    )
    assert last(whole).exists(), log.read_text()

    if variant == "extended":
        bench.finish([*words, f"hydra.run.dir={broken}", f"total_kimg={total_kimg / 4}"], log)
        resume.append(f"total_kimg={total_kimg}")
        begin = resume
    bench.kill_after(random.uniform(0, duration / 2), begin, broken, log)
    dying = bench.start(resume, log, before=DIES_WRITING.format(k=random.randint(1, 3)))
    dying.join()
    assert dying.exitcode == -signal.SIGKILL, log.read_text()
    assert (broken / "checkpoints" / ".last.ckpt.tmp").exists()
    bench.kill_after(random.uniform(0, duration / 2), resume, broken, log)
    bench.finish(resume, log)

    uninterrupted, resumed = (torch.load(last(folder), weights_only=True) for folder in (whole, broken))
    for key in ("clock", "state_dict", "optimizer_states"):
        assert_same_state(uninterrupted[key], resumed[key], key)
    assert bench.digest(last(whole)) == bench.digest(last(broken))
    assert any(name.startswith("ema.average.") for name in resumed["state_dict"])
    assert not list((broken / "checkpoints").glob(".*"))
    assert logged(broken) == logged(whole)
    seen = [row["images_seen"] for row in logged(broken)]
    assert len(seen) == len(set(seen)) == total_kimg // 0.128


def test_the_seed_alone_decides_and_evaluation_has_no_say(bench: Any, tmp_path: Path) -> None:
    """A forked process, one started from nothing by `python -m ganforge`, and one that is scored as it goes."""
    log, seed = tmp_path / "log.txt", random.randrange(10**6)
    words = [
        *BASE,
        "model=dcgan",
        "batch_size=32",
        "total_kimg=0.256",
        "callbacks.evaluation.every_kimg=0.064",
    ]
    few = ["metrics=digits", "metrics.num_samples=32", "metrics.final_num_samples=32"]
    runs = {
        "forked": [f"seed={seed}"],
        "scored": [f"seed={seed}", *few],
        "other": [f"seed={seed + 1}"],
    }
    for name, own in runs.items():
        bench.finish([*words, *own, f"hydra.run.dir={tmp_path / name}"], log)
    subprocess.run(
        [sys.executable, "-m", "ganforge", *words, f"seed={seed}", f"hydra.run.dir={tmp_path / 'fresh'}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])},
        check=True,
        timeout=300,
    )
    digests = {name: bench.digest(last(tmp_path / name)) for name in ("forked", "scored", "other", "fresh")}
    assert digests["forked"] == digests["fresh"] == digests["scored"]
    assert digests["other"] != digests["forked"]
    assert any("fid" in column for column in logged(tmp_path / "scored")[-1])


def test_a_stopped_run_goes_on_where_it_stopped(bench: Any, tmp_path: Path) -> None:
    """SIGTERM ends the round, writes a checkpoint, and says how to go on; SIGINT in the same way."""
    log, folder, whole = tmp_path / "log.txt", tmp_path / "run", tmp_path / "whole"
    words = [*BASE, *MLP, "total_kimg=0.96", "callbacks.checkpoint.every_kimg=0"]
    bench.finish([*words, f"hydra.run.dir={whole}"], log)
    resume = [*words, f"hydra.run.dir={folder}"]
    for number in (signal.SIGTERM, signal.SIGINT):
        stopped = bench.start(resume, log, before=SIGNALS_ITSELF.format(number=number.value))
        stopped.join()
        assert stopped.exitcode == 128 + number, log.read_text()
        assert f"stopped by {number.name}" in (folder / "failure.txt").read_text()
        resume = ["train", f"resume={folder}"]
    assert torch.load(last(folder), weights_only=True)["clock"]["round"] == 18
    bench.finish(resume, log)
    assert bench.digest(last(folder)) == bench.digest(last(whole))
    assert not (folder / "failure.txt").exists()


def test_settings_of_the_optimizers_may_change(bench: Any, tmp_path: Path) -> None:
    log, folder = tmp_path / "log.txt", tmp_path / "run"
    bench.finish([*BASE, *MLP, "total_kimg=0.096", f"hydra.run.dir={folder}"], log)
    asked = ["optimizer.generator.betas=[0.1,0.9]", "optimizer.discriminator.lr=1e-5", "total_kimg=0.192"]
    bench.finish(["train", f"resume={folder}", *asked], log)
    discriminator, generator = torch.load(last(folder), weights_only=True)["optimizer_states"]
    assert tuple(generator["param_groups"][0]["betas"]) == (0.1, 0.9)
    assert discriminator["param_groups"][0]["lr"] == 1e-5
    assert float(generator["state"][0]["step"]) > 96 / 32  # what had been gathered is kept
