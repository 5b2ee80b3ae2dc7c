"""What the tests of shards share: pictures that differ, and a seed that says which."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Pictures = Callable[..., Path]


@pytest.fixture
def seed() -> int:
    """Fresh at every run, and printed when the test fails."""
    value = random.randrange(2**32)
    print(f"seed {value}")
    return value


@pytest.fixture
def pictures(tmp_path: Path, seed: int) -> Pictures:
    """Writes `count` pictures, of 12x10 pixels and in `classes` folders, or side by side without classes."""

    def write(count: int, classes: int = 0, channels: int = 3, name: str = "pictures") -> Path:
        randomness = np.random.default_rng(seed)
        for index in range(count):
            pixels = randomness.integers(256, size=(10, 12, channels), dtype=np.uint8)
            folder = tmp_path / name / (f"class_{index % classes}" if classes else "")
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
            image.save(folder / f"{index:03d}.{'png' if index % 3 else 'bmp'}")
        return tmp_path / name

    return write
