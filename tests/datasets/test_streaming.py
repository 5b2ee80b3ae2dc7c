"""Shards, here or behind a URL: an order that is a function of seed and place, little memory, bounded room on disk."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from ganforge.datasets.image_folder import open_images
from ganforge.datasets.preparation import prepare
from ganforge.datasets.samples import DataError
from ganforge.datasets.shards import Index, Shard, ShardWriter
from ganforge.datasets.streaming import ShardedImages, streaming
from ganforge.training.rounds import RoundIndices, Rounds

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def shards(pictures: Any, tmp_path: Path) -> Path:
    """Ninety pictures in three classes, in about ten shards."""
    source = open_images(pictures(90, 3))
    folder = tmp_path / "shards"
    prepare(source, folder, format="shards", workers=1, shard_bytes=18e3, skip_broken=False)
    assert 8 <= len(list(folder.glob("*.tar"))) <= 14
    return folder


class Server:
    """A folder behind a URL, in a process of its own, that notes what is asked for."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = re.search(r"port (\d+)", self.process.stdout.readline())
        assert port is not None
        self.url = f"http://127.0.0.1:{port.group(1)}"
        self.asked: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.asked += re.findall(r'"GET /(\S+) .* 200', line)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def server(shards: Path) -> Iterator[Server]:
    server = Server(shards)
    yield server
    server.stop()


def permutation(data: ShardedImages, seed: int) -> Tensor:
    return data.permutation(torch.Generator().manual_seed(seed))


# Order


@pytest.mark.parametrize("window", [1, 3, 100])
def test_each_epoch_shows_each_image_once_a_few_shards_at_a_time(
    shards: Path, seed: int, window: int
) -> None:
    data = streaming(shards, window=window)
    order = permutation(data, seed)
    assert torch.equal(order.sort().values, torch.arange(90))
    assert torch.equal(order, permutation(streaming(shards, window=window), seed))
    assert not torch.equal(order, permutation(data, seed + 1))
    shard_of = torch.arange(len(data.store.index.shards)).repeat_interleave(
        torch.tensor([shard.images for shard in data.store.index.shards])
    )
    visits = [set(shard_of[part].tolist()) for part in order.split(1)]
    groups: list[set[int]] = []
    for visit in visits:  # a shard that was left is not come back to
        if groups and (visit <= groups[-1] or len(groups[-1]) < window):
            groups[-1] |= visit
        else:
            groups.append(set(visit))
    assert sum(map(len, groups)) == len(data.store.index.shards)
    assert all(len(group) <= window for group in groups)


def test_a_stream_entered_anywhere_is_the_same_for_any_number_of_ranks(shards: Path, seed: int) -> None:
    data, randomness = streaming(shards, window=2), random.Random(seed)
    whole = RoundIndices(90, 6, seed, start=lambda: 0, permute=data.permutation)
    everything = torch.stack(list(itertools.islice(whole, 50)))
    skipped = randomness.randrange(40)
    entered = RoundIndices(
        90, 6, seed, start=lambda: 6 * skipped, permute=streaming(shards, window=2).permutation
    )
    assert torch.equal(everything[skipped : skipped + 5], torch.stack(list(itertools.islice(entered, 5))))
    for ranks in (1, 2, 3):
        slices = [everything[:15].view(15, ranks, -1)[:, rank].flatten() for rank in range(ranks)]
        assert torch.equal(torch.cat(slices).sort().values, torch.arange(90)), "one epoch, each image once"


def rounds(data: ShardedImages, workers: int, seed: int, start: int = 0) -> Rounds:
    return Rounds(data, conditional=True, images_per_round=7, seed=seed, start=lambda: start, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_indices(shards: Path, seed: int, workers: int) -> None:
    data = streaming(shards, window=2)
    source = rounds(data, workers, seed, start=21)
    loaded = list(itertools.islice(source.train_dataloader(), 20))
    indices = list(itertools.islice(rounds(streaming(shards, window=2), 0, seed, start=21).indices, 20))
    for batch, chosen in zip(loaded, indices, strict=True):
        assert torch.equal(batch["images"], data.batch(chosen))
        assert torch.equal(batch["labels"], data.labels[chosen])


# Facts


def test_facts_come_from_the_index(shards: Path) -> None:
    data = streaming(shards)
    assert (data.name, data.shape, data.num_classes, data.in_memory) == ("shards", (3, 10, 10), 3, False)
    assert streaming(shards, image_size=10, channels=3, num_classes=3, flip=True).flip
    bare = streaming(shards, num_classes=0)
    assert (bare.num_classes, bare.class_names, int(bare.labels.max())) == (0, [], 0)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[17], data[17])


def test_the_fingerprint_is_of_the_content(shards: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(shards, tmp_path / "elsewhere")
    assert streaming(copied).fingerprint() == streaming(shards).fingerprint()
    assert streaming(shards, num_classes=0).fingerprint() != streaming(shards).fingerprint()
    facts = json.loads((copied / "index.json").read_text())
    facts["shards"][0]["sha256"] = "0" * 64
    (copied / "index.json").write_text(json.dumps(facts))
    assert streaming(copied).fingerprint() != streaming(shards).fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "data.path=PATH is needed"),
        ({"path": "nowhere"}, "data.path=nowhere does not exist"),
        ({"path": "."}, r"data.path=\. holds no shards .*index.json.*ganforge prepare"),
        ({"image_size": 11}, "data.image_size=11 does not fit .*data.image_size=10"),
        ({"channels": 1}, "data.channels=1 does not fit"),
        ({"num_classes": 4}, "data.num_classes=4 does not fit"),
        ({"window": 0}, "data.window=0"),
        ({"path": "http://127.0.0.1:9/x"}, "data.path=http://127.0.0.1:9/x holds no shards"),
        ({"path": "nothing://x"}, "data.path=nothing://x holds no shards"),
    ],
)
def test_what_does_not_fit_is_said(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(DataError, match=message):
        streaming(**{"path": shards, **options})


def test_damage_is_named(shards: Path, tmp_path: Path) -> None:
    short = shutil.copytree(shards, tmp_path / "short")
    os.truncate(short / "00002.tar", 5000)
    with pytest.raises(DataError, match=r"00002\.tar has 5,000 bytes instead of"):
        streaming(short)
    (short / "00002.tar").unlink()
    with pytest.raises(DataError, match=r"00002\.tar is missing"):
        streaming(short)
    data = streaming(shards)
    with (shards / "00000.tar").open("rb+") as file:
        file.seek(600)
        file.write(bytes(100))
    with pytest.raises(DataError, match=r"shards/00000\.tar is damaged \(image 0"):
        data[0]
    (shards / "index.npz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"index\.json cannot be used"):
        streaming(shards)


# Bounds


def _growth(folder: Path, answer: Any) -> None:
    data = streaming(folder)
    data.batch(torch.arange(4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(len(data.batch(part)) for part in permutation(data, 0).split(8))
    answer.put((total, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def test_memory_does_not_grow_with_the_data(tmp_path: Path, seed: int) -> None:
    """400 images of 256x256, 79 MB encoded and as much decoded, in four shards, are never in memory together."""
    pixels = np.random.default_rng(seed).integers(256, size=(256, 256, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png", compress_level=0)
    png = (tmp_path / "one.png").read_bytes()
    parts, starts = [], []
    for part in range(4):
        path = tmp_path / f"{part:05d}.tar"
        with ShardWriter(path) as writer:
            for image in range(100):
                writer.add(100 * part + image, png, None)
        parts.append(Shard(path.name, 100, path.stat().st_size, "0"))
        starts += writer.starts
    places = {"starts": np.array(starts), "sizes": np.full(400, len(png)), "labels": np.zeros(400, np.int64)}
    Index(shape=(3, 256, 256), class_names=[], shards=parts, **places).write(tmp_path)
    answer = FORK.SimpleQueue()
    child = FORK.Process(target=_growth, args=(tmp_path, answer))
    child.start()
    total, megabytes = answer.get()
    child.join()
    assert total == 400
    assert megabytes < 20


# Behind a URL


@pytest.mark.parametrize("workers", [0, 2])
def test_a_url_gives_the_same_batches_and_asks_for_each_shard_once(
    shards: Path, server: Server, tmp_path: Path, seed: int, workers: int
) -> None:
    """Two epochs of what fits on disk: processes that want the same shard share one download."""
    remote = streaming(server.url, window=3, cache=tmp_path / "cache")
    loaded = list(itertools.islice(rounds(remote, workers, seed).train_dataloader(), 26))
    local = list(itertools.islice(rounds(streaming(shards, window=3), 0, seed).train_dataloader(), 26))
    for one, other in zip(loaded, local, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["labels"], other["labels"])
    assert remote.fingerprint() == streaming(shards).fingerprint()
    names = [path.name for path in shards.iterdir()]
    assert sorted(server.asked) == sorted(names)
    asked = len(server.asked)
    again = streaming(f"{server.url}/", cache=tmp_path / "cache")
    assert torch.equal(again[50], remote[50])
    assert server.asked[asked:] == ["index.json"]


@pytest.mark.parametrize("workers", [0, 2])
def test_room_on_disk_is_bounded(
    shards: Path, server: Server, tmp_path: Path, seed: int, workers: int
) -> None:
    bound = sum(sorted(path.stat().st_size for path in shards.glob("*.tar"))[-4:])
    remote = streaming(server.url, window=2, cache=tmp_path / "cache", cache_gb=bound / 1e9)
    local = rounds(streaming(shards, window=2), 0, seed)
    pairs = zip(rounds(remote, workers, seed).train_dataloader(), local.train_dataloader(), strict=True)
    for one, other in itertools.islice(pairs, 40):
        assert torch.equal(one["images"], other["images"])
        # Shards come and go between one file and the next: a look at a time may count both.
        held = min(sum(_size(path) for path in (tmp_path / "cache").rglob("*.tar")) for _ in range(3))
        assert held <= bound < sum(path.stat().st_size for path in shards.glob("*.tar"))
    with pytest.raises(DataError, match=r"data.cache_gb=.* is too little for data.window=3"):
        streaming(server.url, window=3, cache=tmp_path / "cache", cache_gb=bound / 1e9)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has made room
        return 0


def test_a_download_is_checked_and_tried_again(
    shards: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    remote = streaming(server.url, cache=tmp_path / "cache")
    whole = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(whole[:-1])
    here = remote.store.index.shards[0].images
    with pytest.raises(
        DataError, match=r"00001\.tar cannot be downloaded .*not what the index says.*4 times"
    ):
        remote[here]
    assert server.asked.count("00001.tar") == 4
    assert not list((tmp_path / "cache").rglob("*.part"))
    (shards / "00001.tar").write_bytes(whole)
    assert torch.equal(remote[here], streaming(shards)[here])
    server.stop()
    assert torch.equal(remote[here], streaming(shards)[here])
    with pytest.raises(DataError, match=r"00000\.tar cannot be downloaded"):
        remote[0]


def test_half_a_shard_of_a_process_that_was_killed_takes_no_room(
    shards: Path, server: Server, tmp_path: Path
) -> None:
    remote = streaming(server.url, cache=tmp_path / "cache")
    left = remote.store.folder / ".00001.tar.part"
    left.write_bytes(b"half")
    going_on = remote.store.folder / ".00002.tar.part"
    going_on.write_bytes(b"half")
    with FileLock(remote.store.folder / ".00002.tar.lock"):
        assert torch.equal(remote[0], streaming(shards)[0])
    assert not left.exists()
    assert going_on.exists()
