"""Seconds and thousands of images until a recipe reaches an FID: `ganforge train stop.fid=TARGET`, as users type it.

FID is that of the data's own small classifier, on the moving average of the generator, asked for in small steps; time
includes the evaluations. MNIST is left out where its files are not in --mnist.

python bench/time_to_quality.py [--seeds 3] [--mnist data] [--quick] [WORD ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from header import header


@dataclass
class Recipe:
    """Settings, the FID to reach, and the most images to spend on it."""

    data: str
    name: str
    words: tuple[str, ...]
    fid: float
    most_kimg: float
    every_kimg: float


DIGITS = [
    Recipe("digits", "DCGAN, hinge (the default)", (), 2.0, 300, 5),
    Recipe("digits", "DCGAN, hinge, fast.all", ("fast.all=true",), 2.0, 300, 5),
    Recipe(
        "digits",
        "DCGAN, non-saturating, R1",
        ("loss=nonsaturating", "penalty=[r1]", "penalty.r1.gamma=0.1"),
        2.0,
        300,
        5,
    ),
]
MNIST = [
    Recipe("MNIST", "dcgan_mnist", ("experiment=dcgan_mnist",), 10.0, 100, 10),
    Recipe("MNIST", "dcgan_mnist, fast.all", ("experiment=dcgan_mnist", "fast.all=true"), 10.0, 100, 10),
    Recipe(
        "MNIST",
        "dcgan_mnist, hinge, R1 each 8th round",
        ("experiment=dcgan_mnist", "loss=hinge", "penalty.r1.every=8"),
        10.0,
        100,
        10,
    ),
]


def play(recipe: Recipe, words: list[str], seed: int) -> tuple[float, float] | None:
    """(kimg, seconds) when the FID was reached; None when it was not."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ganforge", "train", *recipe.words, *words]
        command += [
            f"seed={seed}",
            "logger=csv",
            f"stop.fid={recipe.fid:g}",
            f"total_kimg={recipe.most_kimg:g}",
        ]
        command += [f"callbacks.evaluation.every_kimg={recipe.every_kimg:g}", "callbacks.samples=null"]
        command += ["metrics.final_num_samples=2000", f"hydra.run.dir={folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        scores = json.loads((Path(folder) / "run" / "scores.json").read_text())
    stopped = scores.get("stopped")
    return (stopped["kimg"], stopped["seconds"]) if stopped else None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mnist", type=Path, default=Path("data"), help="the folder that holds MNIST/raw")
    parser.add_argument("--quick", action="store_true", help="the digits and one seed only")
    arguments, words = parser.parse_known_args()
    seeds = range(1 if arguments.quick else arguments.seeds)
    there = (arguments.mnist / "MNIST" / "raw").is_dir()
    recipes = [(recipe, words) for recipe in DIGITS]
    if there and not arguments.quick:
        recipes += [(recipe, [f"data.root={arguments.mnist}", *words]) for recipe in MNIST]
    print(header(seed=", ".join(map(str, seeds))))
    print("Medians over the seeds that reached it.\n")
    print("| data | recipe | FID | reached | kimg | seconds |\n|---|---|---|---|---|---|")
    for recipe, more in recipes:
        reached = [outcome for seed in seeds if (outcome := play(recipe, more, seed))]
        figures = [f"{statistics.median(values):.3g}" for values in zip(*reached, strict=True)] or ["", ""]
        how_often = f"{len(reached)} of {len(seeds)}"
        print(
            f"| {recipe.data} | {recipe.name} | {recipe.fid:g} | {how_often} | {figures[0]} | {figures[1]} |",
            flush=True,
        )
    if not there:
        print(
            f"\nMNIST is left out: {arguments.mnist}/MNIST/raw is not there; --mnist FOLDER says where it is."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
