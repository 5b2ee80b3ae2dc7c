"""Modes covered of 1,000 stacked digits, and KL(generated || data): DCGAN, PacGAN, and RpGAN with R1 and R2.

PacGAN's test (arXiv 1712.04086) at a small size: 26,000 samples of the moving average, each channel through a
classifier of the single digits. On those that come with scikit-learn, or with --mnist FOLDER on MNIST at 32x32.

python bench/stacked_mnist.py [--kimg 200] [--width 32] [--discriminator-width 8] [--seeds 1] [--mnist FOLDER]
    [--pictures FOLDER] [WORD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from header import header


@dataclass(frozen=True)
class Game:
    """A row of the table: what differs from the others, and what its picture is called."""

    name: str
    file: str
    words: tuple[str, ...]


GAMES = [
    Game("DCGAN", "dcgan", ()),
    Game("PacGAN, two pictures a pack", "pacgan", ("game.packing=2",)),
    Game(
        "RpGAN + R1 + R2",
        "rpgan",
        ("loss=relativistic", "penalty=[r1,r2]", "penalty.r1.gamma=0.5", "penalty.r2.gamma=0.5"),
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kimg", type=float, default=200)
    parser.add_argument("--width", type=int, default=32, help="of the generator")
    parser.add_argument(
        "--discriminator-width", type=int, help="the generator's; a smaller one misses more modes"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=26000)
    parser.add_argument("--mnist", type=Path, help="the folder that holds MNIST/raw; digits without it")
    parser.add_argument("--pictures", type=Path, help="a folder for a grid of each")
    arguments, words = parser.parse_known_args()
    shared = [f"total_kimg={arguments.kimg:g}", f"metrics.final_num_samples={arguments.samples}"]
    widths = {"generator": arguments.width, "discriminator": arguments.discriminator_width or arguments.width}
    shared += [f"model.{side}.width={width}" for side, width in widths.items()]
    if arguments.mnist is not None:
        shared += [
            "data=stacked_mnist",
            f"data.root={arguments.mnist}",
            "data.image_size=32",
            "data.resize=pad",
        ]
    shared += words
    print(header(seed=f"0 to {arguments.seeds - 1}"))
    data = "stacked MNIST, 32x32" if arguments.mnist is not None else "stacked digits, 8x8"
    print(f"{data}, {arguments.kimg:g} kimg, widths {' and '.join(map(str, widths.values()))}.\n")
    print("| game | seed | modes of 1,000 | KL, nats | seconds |\n|---|---|---|---|---|", flush=True)
    for game in GAMES:
        for seed in range(arguments.seeds):
            begun = time.perf_counter()
            picture = arguments.pictures / f"{game.file}.png" if arguments.pictures and seed == 0 else None
            scores = play([*shared, *game.words, f"seed={seed}"], picture)
            seconds = time.perf_counter() - begun
            row = (
                f"| {game.name} | {seed} | {scores['modes']:.0f} | {scores['modes_kl']:.3f} | {seconds:.0f} |"
            )
            print(row, flush=True)
    return 0


def play(words: Sequence[str], picture: Path | None) -> dict[str, float]:
    """The final scores of a run in its own process, in a folder that is thrown away but for its last grid."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ganforge", "train", "experiment=stacked_digits", *words]
        command += [f"hydra.run.dir={folder}/run", "logger=csv", "callbacks.log.progress=false"]
        command += ["callbacks.evaluation.every_kimg=0", "callbacks.samples.every_kimg=0"]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        if picture is not None:
            picture.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(max(Path(folder, "run", "samples").glob("*.png")), picture)
        scores: dict[str, float] = json.loads(Path(folder, "run", "scores.json").read_text())["scores"]
        return scores


if __name__ == "__main__":
    sys.exit(main())
