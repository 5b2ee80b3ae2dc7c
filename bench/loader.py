"""Images/s that each kind of data brings, beside what networks take: a loader below 1 keeps its network waiting.

The same 32x32 pictures from memory, from folders of JPEG and PNG files, from a ZIP file and from shards; and from a
folder of 256x256 JPEG photographs that are made small again and again, which `ganforge prepare` does once. Batches of
64, read as training reads them, by the process itself and by two others; sources take turns, and the medians count.
Networks are trained by `ganforge train` on data in memory, on the GPU where there is one.

python bench/loader.py [--images 4000] [--windows 5] [--seconds 1.0] [WORD ...]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ganforge.datasets.image_folder import image_folder, open_images
from ganforge.datasets.preparation import prepare
from ganforge.datasets.samples import Samples
from ganforge.datasets.streaming import streaming
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.module import AdversarialModule
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run
from header import header
from loop import MODELS, run

NETWORKS = ("dcgan_32", "sngan_32")
BATCH = 64
SIZE = 32


def write_pictures(folder: Path, number: int, size: int, suffix: str) -> Path:
    """Smooth colours with some noise: as a photograph, a JPEG of them is about a tenth of their size."""
    randomness = np.random.default_rng(0)
    folder.mkdir()
    for index in range(number):
        colours = Image.fromarray(randomness.integers(256, size=(6, 6, 3), dtype=np.uint8))
        smooth = np.asarray(colours.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + randomness.integers(-6, 7, size=smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:06d}{suffix}", quality=90)
    return folder


def sources(folder: Path, number: int) -> dict[str, Samples]:
    png = write_pictures(folder / "png", number, SIZE, ".png")
    jpeg = write_pictures(folder / "jpeg", number, SIZE, ".jpg")
    photographs = write_pictures(folder / "photographs", min(number, 1000), 256, ".jpg")
    for format, out in (("zip", folder / "one.zip"), ("shards", folder / "shards")):
        prepare(
            open_images(png),
            out,
            format=format,  # type: ignore[arg-type]
            workers=2,
            shard_bytes=2e6,
            skip_broken=False,
        )
    small: dict[str, Any] = {"image_size": SIZE, "memory_gb": 0, "verify": False}
    return {
        "memory": image_folder(png),
        "folder of JPEG": image_folder(jpeg, **small),
        "folder of PNG": image_folder(png, **small),
        "ZIP": image_folder(folder / "one.zip", **small),
        "shards": streaming(folder / "shards"),
        "folder of JPEG, 256x256": image_folder(photographs, **small),
    }


class Speed(Periodic):
    """Wall-clock seconds of windows of a training's rounds, after one window to warm up."""

    last: Speed

    def __init__(self, windows: int, seconds: float) -> None:
        super().__init__(every_kimg=0)
        self.windows, self.seconds = windows, seconds
        self.rates: list[float] = []
        self.start, self.seen = 0.0, 0
        Speed.last = self

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return not self.start or time.perf_counter() - self.start > self.seconds

    def act(self, trainer: Any, module: AdversarialModule, run: Run) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.start:
            self.rates.append((module.images_seen - self.seen) / (now - self.start))
        if len(self.rates) > self.windows:
            run.ended_because = "measured"
        self.start, self.seen = time.perf_counter(), module.images_seen


def consumption(words: list[str], windows: int, seconds: float) -> float:
    """Images/s of `ganforge train WORDS`."""
    callback = (
        f"+callbacks.speed={{_target_: {Speed.__module__}.Speed, windows: {windows}, seconds: {seconds}}}"
    )
    device = ["trainer=default"] if torch.cuda.is_available() else []
    with tempfile.TemporaryDirectory() as folder:
        run(
            [*words, *device, callback, "total_kimg=1e6", "callbacks.log.every_kimg=100"],
            Path(folder) / "run",
        )
    return statistics.median(Speed.last.rates[1:])


def window(loader: Iterator[Any], ready: int, seconds: float) -> float:
    """Images/s, after the batches that workers had ready."""
    for _ in range(ready):
        next(loader)
    images, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        images += len(next(loader)["images"])
    return images / passed


def production(everything: dict[str, Samples], windows: int, seconds: float) -> dict[tuple[str, int], float]:
    """Images/s by source and workers."""
    loaders = {}
    for name, data in everything.items():
        for workers in (0, 2):
            if workers == 0 or not data.in_memory:
                stream = Rounds(
                    data,
                    conditional=False,
                    images_per_round=BATCH,
                    seed=0,
                    start=lambda: 0,
                    workers=workers,
                )
                loaders[name, workers] = iter(stream.train_dataloader())
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in loaders}
    for _ in range(windows + 1):
        for key, loader in loaders.items():
            rates[key].append(window(loader, 4 * key[1], seconds))
    return {key: statistics.median(each[1:]) for key, each in rates.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4000, help="pictures of each source")
    parser.add_argument("--windows", type=int, default=5, help="of each source and network")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    taken = {
        name: consumption([*MODELS[name], *words], arguments.windows, arguments.seconds) for name in NETWORKS
    }
    with tempfile.TemporaryDirectory() as folder:
        made = production(sources(Path(folder), arguments.images), arguments.windows, arguments.seconds)
    networks = ", ".join(f"{name} {rate:,.0f} img/s" for name, rate in taken.items())
    print(f"{header(seed=0)}\nNetworks take: {networks}.\n")
    print("| data | workers | img/s | " + " | ".join(f"times {name}" for name in taken) + " |")
    print("|---|---|---|" + "---|" * len(taken))
    for (name, workers), rate in made.items():
        ratios = " | ".join(f"{rate / each:.2f}" for each in taken.values())
        print(f"| {name} | {workers} | {rate:,.0f} | {ratios} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
