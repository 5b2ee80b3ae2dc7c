"""What is prepared has the pixels and labels of its source, and the same bytes however often it was killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from ganforge.datasets.image_folder import image_folder, open_images
from ganforge.datasets.preparation import SHUFFLE_SEED, Format, OutOfSpaceError, Prepared, prepare
from ganforge.datasets.samples import DataError, Samples
from ganforge.datasets.streaming import streaming

FORK = multiprocessing.get_context("fork")


def write(source: Path, out: Path, *, shard_bytes: float = 8e3, workers: int = 2, **options: Any) -> Prepared:
    format: Format = "zip" if out.suffix == ".zip" else "shards"
    skip_broken = options.pop("skip_broken", False)
    return prepare(
        open_images(source, what="source", **options),
        out,
        format=format,
        workers=workers,
        shard_bytes=shard_bytes,
        skip_broken=skip_broken,
    )


def contents(data: Samples) -> list[tuple[str, bytes]]:
    """Every image's class and pixels, whatever their order."""
    names = data.class_names or [""]
    everything = data.batch(torch.arange(len(data)))
    return sorted(
        (names[label], image.numpy().tobytes())
        for image, label in zip(everything, data.labels.tolist(), strict=True)
    )


def last_written(count: int) -> int:
    """The image, but for the first one, that comes last into the shards."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SHUFFLE_SEED))
    return int(order[order != 0][-1])


def digests(place: Path) -> dict[str, str]:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shards_and_zip_have_the_pixels_and_classes_of_their_source(
    pictures: Any, tmp_path: Path, classes: int, channels: int
) -> None:
    source = pictures(40, classes, channels)
    expected = image_folder(source, image_size=8, channels=channels)
    done = write(source, tmp_path / "shards", image_size=8, channels=channels)
    write(source, tmp_path / "one.zip", image_size=8, channels=channels)
    shards, zipped = streaming(tmp_path / "shards"), image_folder(tmp_path / "one.zip", channels=channels)
    assert done.images == 40
    assert done.files == len(list((tmp_path / "shards").glob("*.tar"))) > 2
    for data in (shards, zipped):
        assert data.shape == (channels, 8, 8)
        assert data.class_names == [f"class_{label}" for label in range(classes)]
        assert contents(data) == contents(expected)
    assert torch.equal(zipped.labels, expected.labels)
    assert not list(tmp_path.rglob("*.part")), "nothing passing is left"
    assert not list(tmp_path.rglob(".*"))


def test_classes_are_spread_over_all_shards(pictures: Any, tmp_path: Path) -> None:
    source = pictures(120, 2)
    write(source, tmp_path / "shards", shard_bytes=25e3)
    data = streaming(tmp_path / "shards")
    ends = [shard.images for shard in data.store.index.shards]
    shares = [labels.float().mean().item() for labels in torch.split(data.labels, ends)]
    assert len(shares) >= 4
    assert all(0 < share < 1 for share in shares[:-1]), "a shard is of one class, as folders are sorted"


def test_plain_tar_and_zip_readers_find_what_is_said(pictures: Any, tmp_path: Path) -> None:
    source = pictures(9, 3)
    write(source, tmp_path / "shards")
    write(source, tmp_path / "one.zip")
    data = streaming(tmp_path / "shards")
    found = []
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        found += [int(members[f"{name[:8]}.cls"]) for name in members if name.endswith(".png")]
    assert found == data.labels.tolist()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))
        assert {name for name, _ in labels["labels"]} | {"dataset.json"} == set(archive.namelist())
    assert labels["class_names"] == ["class_0", "class_1", "class_2"]


def test_non_square_images_are_kept_when_nothing_may_be_resized(pictures: Any, tmp_path: Path) -> None:
    source = pictures(5)
    write(source, tmp_path / "shards", resize="refuse")
    assert streaming(tmp_path / "shards").shape == (3, 10, 12)
    assert contents(streaming(tmp_path / "shards")) == contents(image_folder(source, resize="refuse"))


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_killed_and_started_again_gives_the_same_bytes(
    pictures: Any, tmp_path: Path, seed: int, name: str
) -> None:
    source = pictures(60, 2)
    whole = tmp_path / "whole" / name
    whole.parent.mkdir()
    write(source, whole, workers=1)
    randomness = random.Random(seed)
    for attempt in range(4):
        broken = tmp_path / f"broken{attempt}" / name
        broken.parent.mkdir()
        kills = 0
        for parts in sorted(randomness.sample(range(1, 8), 2)):
            child = FORK.Process(target=write, args=(source, broken))
            child.start()
            done = broken.with_name(f"{name}.part") / ".done"
            while child.is_alive() and len(list(done.glob("0*.json"))) < parts:
                time.sleep(0.0005)
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += child.exitcode == -signal.SIGKILL
            if broken.exists():
                break
        else:
            write(source, broken, workers=3)
        assert digests(broken) == digests(whole), f"after {kills} kills"
        leftovers = [path.name for path in broken.parent.iterdir() if path != broken]
        assert not leftovers or kills


def test_finished_shards_are_not_written_again(pictures: Any, tmp_path: Path) -> None:
    source = pictures(30)
    out, work = tmp_path / "out", tmp_path / "out.part"
    broken = sorted(source.iterdir())[last_written(30)]
    saved = broken.read_bytes()
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"{broken.name} cannot be decoded .*skip_broken=true"):
        write(source, out, shard_bytes=1e3, workers=1)
    first = {path.name: path.stat().st_mtime_ns for path in work.glob("*.tar")}
    assert len(first) > 10
    broken.write_bytes(saved)
    write(source, out, shard_bytes=1e3)
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    assert contents(streaming(out)) == contents(image_folder(source))


def test_damaged_images_are_named_or_left_out(pictures: Any, tmp_path: Path) -> None:
    source = pictures(30, 2)
    names = ["class_0/012.bmp", "class_1/029.png"]
    for name in names:
        (source / name).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"pictures/class_./0..\.... cannot be decoded .*skip_broken=true"):
        write(source, tmp_path / "out")
    for out in (tmp_path / "out", tmp_path / "out.zip"):
        done = write(source, out, skip_broken=True)
        assert (done.images, done.damaged) == (28, names)
    expected = contents(image_folder(source, on_corrupt="skip"))
    assert contents(streaming(tmp_path / "out")) == expected
    assert contents(image_folder(tmp_path / "out.zip")) == expected


def test_nothing_but_damaged_images(pictures: Any, tmp_path: Path) -> None:
    source = pictures(3)
    for path in source.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of its 3 images can be decoded"):
        write(source, tmp_path / "out", image_size=8, channels=3, skip_broken=True)
    assert not (tmp_path / "out.part").exists()


def test_what_others_keep_at_the_place_of_its_work_stays(pictures: Any, tmp_path: Path) -> None:
    kept = tmp_path / "out.part" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(DataError, match=r"out\.part is there, and no unfinished preparation"):
        write(pictures(5), tmp_path / "out")
    assert kept.read_text() == "mine"


def test_another_preparation_in_the_same_place_is_refused(pictures: Any, tmp_path: Path) -> None:
    source = pictures(20)
    out, work = tmp_path / "out", tmp_path / "out.part"
    damaged = sorted(source.iterdir())[last_written(20)]
    saved = damaged.read_bytes()
    damaged.write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be decoded"):
        write(source, out, shard_bytes=2e3)
    assert (work / "00000.tar").exists()
    for other in ({"resize": "stretch"}, {"shard_bytes": 3e3}, {"image_size": 6}, {"channels": 1}):
        with pytest.raises(DataError, match=r"out\.part holds .*remove it to begin anew"):
            write(source, out, **{"shard_bytes": 2e3, **other})
    shutil.copytree(source, tmp_path / "changed", copy_function=shutil.copyfile)
    with pytest.raises(DataError, match="other images"):
        write(tmp_path / "changed", out, shard_bytes=2e3)
    with (
        FileLock(work / ".done" / "lock"),
        pytest.raises(DataError, match="another process is preparing it"),
    ):
        write(source, out, shard_bytes=2e3)
    damaged.write_bytes(saved)
    write(source, out, shard_bytes=2e3)
    with pytest.raises(DataError, match="is there already"):
        write(source, out)
    assert len(streaming(out)) == 20


def _with_little_room(source: Path, out: Path, answer: Any) -> None:
    """A file may have 20 kB: the system refuses a longer one as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        write(source, out, shard_bytes=50e3, workers=1)
    except OutOfSpaceError as error:
        answer.put((error.strerror, error.filename))


def test_a_full_disk_is_said_and_the_work_goes_on_later(pictures: Any, tmp_path: Path) -> None:
    source = pictures(60)
    answer = FORK.SimpleQueue()
    child = FORK.Process(target=_with_little_room, args=(source, tmp_path / "out", answer))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert answer.get() == ("File too large; 0 of 60 images are finished", str(tmp_path / "out.part"))
    assert write(source, tmp_path / "out").images == 60
