"""The cache under several writers at once, and with files that are half there: never a wrong or half-read tensor."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ganforge as package
from ganforge.evaluation.cache import Cache

WRITER = """
import sys, torch
from ganforge.evaluation.cache import Cache
cache = Cache(sys.argv[1])
path = cache.path("features", "shared")
value = torch.arange(20000.0).view(500, 40)  # one name, one content: that is what the name is made from
for turn in range(60):
    cache.save(path, {"features": value})
    found = cache.load(path)
    assert found is not None, "another writer's file was seen half written"
    assert torch.equal(found["features"], value)
"""


@pytest.mark.slow
def test_four_processes_write_and_read_one_file(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(package.__file__).parents[1]), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, said
    assert not any("damaged" in text or "cannot" in text for text in said)
    assert [path.name.startswith("features-") for path in tmp_path.iterdir()] == [True], "no litter"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_what_an_interrupted_copy_left_is_no_hit(
    share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    path = cache.path("features", 1)
    cache.save(path, {"features": torch.randn(50, 8)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with caplog.at_level(logging.WARNING):
        assert cache.load(path) is None
    assert str(path) in caplog.text


def test_other_parts_are_another_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    paths = {cache.path("features", *parts) for parts in (("a", 1), ("a", 2), ("a1",), ("a", "1"), ("b", 1))}
    assert len(paths) == 5
