"""`ganforge prepare` as it is typed, and what is then trained and evaluated on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganforge.datasets.streaming import streaming


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty 12x10 pictures in two classes."""
    for index in range(40):
        pixels = np.random.default_rng().integers(0, 256, (10, 12, 3), dtype=np.uint8)
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("out", ["shards", "pictures.zip", "my shards, =1"])
def test_the_command_that_it_ends_with_trains(ganforge: Any, train: Any, pictures: Path, out: str) -> None:
    done = ganforge("prepare", "pictures", f"out='{out}'", "image_size=8", "shard_mb=0.01")
    assert done.code == 0, done.err
    summary = rf"^{re.escape(out)}: 40 images of 3x8x8 in 2 classes, (\d+ shards|a ZIP file) of 0\.\d MB$"
    assert re.search(summary, done.err, re.MULTILINE)
    (line,) = [line for line in done.err.splitlines() if line.startswith("train on it: ganforge train ")]
    trained = train(*shlex.split(line)[5:], "callbacks.samples=null", "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    assert "40 samples of" in trained.err
    assert "(3x8x8), 2 classes" in trained.err


def test_mistakes_are_said_before_any_work(ganforge: Any, pictures: Path, tmp_path: Path) -> None:
    ganforge("prepare").refuses("ganforge prepare SOURCE out=PATH")
    ganforge("prepare", "pictures").refuses("ganforge prepare SOURCE out=PATH")
    ganforge("prepare", "pictures", "more", "out=x").refuses("one SOURCE", "pictures, more")
    ganforge("prepare", "nowhere", "out=x").refuses("source=nowhere", "does not exist")
    for wrong in ("workers=0", "shard_mb=-1", "image_size=0", "resize=squash", "channels=2", "format=tar"):
        ganforge("prepare", "pictures", "out=x", wrong).refuses(wrong.split("=")[0] + "=")
    ganforge("prepare", "pictures", "out=x", "num_classes=3").refuses("num_classes=3", "has 2")
    ganforge("prepare", "pictures", "out=x.zip", "format=shards").refuses("out=x.zip", "format=shards")
    ganforge("prepare", "pictures", "out=x", "format=zip").refuses("out=x", "out=NAME.zip")
    ganforge("prepare", "pictures", "out=x", "size=3").refuses("there is no setting 'size'")
    ganforge("prepare", "pictures", "out=pictures").refuses("out=pictures", "is there already")
    (pictures / "a" / "0.png").write_bytes(b"no picture")
    ganforge("prepare", "pictures", "out=x").refuses("pictures/a/0.png", "skip_broken=true")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_damaged_images_are_left_out_with_a_warning(ganforge: Any, pictures: Path) -> None:
    (pictures / "a" / "10.png").write_bytes(b"no picture")
    done = ganforge("prepare", "pictures", "out=x", "skip_broken=true")
    assert done.code == 0
    assert "warning: left out 1 of 40 images as damaged: a/10.png\n" in done.err
    assert "x: 39 images of 3x10x10 in 2 classes" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_preparation_goes_on(
    typed: Any, pictures: Path, tmp_path: Path, own_environment: Any, number: int
) -> None:
    words = ("prepare", "pictures", "out=out", "shard_mb=0.01", "workers=1")
    command = [sys.executable, "-m", "ganforge", *words]
    for links in (1500, 6000, 24000):  # on a busy machine the signal may come too late for few
        for index in range(links):
            path = pictures / "b" / f"more{index}.png"
            if not path.exists():
                os.link(pictures / "a" / "0.png", path)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = subprocess.Popen(
            command, cwd=tmp_path, env=own_environment, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not list((tmp_path / "out.part" / ".done").glob("00002.json")):
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    if number == signal.SIGINT:
        assert (process.returncode, errors) == (
            130,
            "ganforge: stopped; the same command goes on from there\n",
        )
    else:
        assert process.returncode == -signal.SIGKILL
    done = typed(*words)
    assert done.code == 0, done.err
    assert re.search(rf"^going on after \d+ of {links + 40:,} images$", done.err, re.MULTILINE)
    assert len(streaming(tmp_path / "out")) == links + 40
    assert typed("prepare", "pictures", "out=whole", "shard_mb=0.01").code == 0
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_full_disk_fails_with_the_way_on(pictures: Path, tmp_path: Path, own_environment: Any) -> None:
    """A file may have 5 kB: the system refuses a longer one as it does on a full disk."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
        "from ganforge.commands.application import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", limited, "prepare", "pictures", "out=out"]
    done = subprocess.run(
        command, cwd=tmp_path, env=own_environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr == (
        "ganforge: out.part: File too large; 0 of 40 images are finished: make room, and the same command goes on "
        "from there\n"
    )


def test_shards_are_evaluated_as_the_pictures_themselves(ganforge: Any, pictures: Path) -> None:
    """By the data set's name and by the folder's: with the same figures, as the pixels are the same."""
    assert ganforge("prepare", "pictures", "out=shards", "shard_mb=0.02").code == 0
    generated = "generated=pictures"
    words = ("image_size=10", "metrics.extractor=digits", "metrics.compute=[fid]", "out=scores.json")
    sides = {
        "pictures": ("real=pictures",),
        "shards": ("real=shards",),
        "streaming": ("real=streaming", "real.path=shards"),
    }
    for name, side in sides.items():
        done = ganforge("evaluate", generated, *side, *words)
        assert done.code == 0, done.err
        fid = re.search(r"│ fid +│ +(\S+) │", done.out)
        assert fid is not None, name
        assert abs(float(fid.group(1))) < 1e-3, name
