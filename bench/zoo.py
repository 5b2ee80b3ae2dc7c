"""Every family of the zoo learns small digits: its recipe at small width, for about a minute of one CPU thread.

Each recipe of FAMILIES is trained by `ganforge train` with its own game, loss, penalties, head and augmentation, and
with the small networks, batches and learning rates below. Figures go to conf/experiment/measured.json, where
`ganforge zoo` finds them, pictures of the first seed to docs/zoo/. What is measured already is not trained again.

python bench/zoo.py [--data digits|mnist] [--root data] [--seeds 3] [--only RECIPE ...] [--again] [--jobs 1]
ganforge zoo markdown=true out=docs/zoo.md
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from PIL import Image

from ganforge.commands import resolvers, schema
from ganforge.commands.options import config_folder
from ganforge.runs import RunFolder
from header import header

HERE = Path(__file__).resolve().parent
MEASURED = HERE.parent / "conf" / "experiment" / "measured.json"
PICTURES = HERE.parent / "docs" / "zoo"
FIGURES = {
    "fid": "fid",
    "kid": "kid_mean",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
}

# Small networks, by model: the sides of pictures that it is given, and settings.
SMALL = {
    "mlp": (8, "model.generator.width=128 model.discriminator.width=128"),
    "dcgan": (8, "model.generator.width=32 model.discriminator.width=32"),
    "progan": (8, "model.generator.width=32 model.discriminator.width=32 model.generator.max_width=64 "
        "model.discriminator.max_width=64 model.generator.latent_dim=64 model.generator.stable_kimg=5 "
        "model.generator.fade_kimg=10"),
    "stylegan2": (8, "model.generator.width=32 model.discriminator.width=32 model.generator.max_width=64 "
        "model.discriminator.max_width=64 model.generator.latent_dim=64 model.generator.w_dim=64"),
    "stylegan3": (8, "model.generator.width=32 model.discriminator.width=32 model.generator.max_width=64 "
        "model.discriminator.max_width=64 model.generator.latent_dim=64 model.generator.w_dim=64 "
        "model.generator.layers=4 model.generator.margin=4"),
    "r3gan": (8, "model.generator.width=32 model.discriminator.width=32 model.generator.max_width=64 "
        "model.discriminator.max_width=64"),
    "sngan": (32, "model.generator.width=16 model.discriminator.width=16"),
    "sagan": (32, "model.generator.width=16 model.discriminator.width=16"),
    "biggan": (32, "model.generator.width=8 model.discriminator.width=8"),
    "biggan_deep": (32, "model.generator.width=16 model.discriminator.width=16"),
    "fastgan": (64, "model.generator.width=4 model.discriminator.width=4 model.generator.latent_dim=64"),
}  # fmt: skip
RATES = "discriminator_steps=1 optimizer.generator.lr=1e-3 optimizer.discriminator.lr=1e-3"
QUICK = f"{RATES} batch_size=32"
FEW_ROUNDS = f"{RATES} batch_size=16"  # for the networks of 32x32 and more, whose rounds take longest


@dataclass(frozen=True)
class Family:
    """A recipe, how many thousand images it is shown, and what else differs from its own numbers."""

    recipe: str
    kimg: float
    words: str = QUICK


FAMILIES = [
    Family("digits", 100, "optimizer.generator.lr=1e-3 optimizer.discriminator.lr=1e-3"),
    Family("gan_mnist", 100),
    Family("cgan_mnist", 100),
    Family("dcgan_cifar10", 60),
    Family("lsgan_cifar10", 60),
    Family("ragan_cifar10", 60),
    Family("wgan_cifar10", 60),
    Family("wgan_gp_cifar10", 60),
    Family("dragan_cifar10", 60),
    Family("acgan_cifar10", 60),
    Family("infogan_mnist", 60, "batch_size=32"),
    Family("bigan_mnist", 60),
    Family("cogan_mnist", 30, f"{QUICK} game.second=negatives"),  # edges at 8x8 are all white
    Family("mad_gan_mnist", 40),
    Family(
        "began_folder",
        40,
        "batch_size=16 game.gamma=1.0 game.k_rate=0.003 game.discriminator.width=16 game.discriminator.code_dim=32 "
        "optimizer.generator.lr=3e-4 optimizer.discriminator.lr=3e-4",
    ),
    Family("ebgan_mnist", 60, f"{QUICK} game.discriminator.width=16"),
    Family("ssgan_cifar10", 3, FEW_ROUNDS),
    Family("sngan_cifar10", 5, FEW_ROUNDS),
    Family("sagan_cifar10", 5, FEW_ROUNDS),
    Family("biggan_cifar10", 3, FEW_ROUNDS),
    Family("biggan_deep_imagenet128", 14, FEW_ROUNDS),
    Family("crgan_cifar10", 3, FEW_ROUNDS),
    Family("icrgan_cifar10", 3, FEW_ROUNDS),
    Family("lecam_cifar10", 8, FEW_ROUNDS),
    Family("biggan_diffaugment_cifar10", 3, FEW_ROUNDS),
    Family("tacgan_cifar10", 3, FEW_ROUNDS),
    Family("adcgan_cifar10", 3, FEW_ROUNDS),
    Family("contragan_cifar10", 3, FEW_ROUNDS),
    Family("reacgan_cifar10", 3, FEW_ROUNDS),
    Family("mhgan_cifar10", 3, FEW_ROUNDS),
    Family("progan_cifar10", 60),
    Family("stylegan2_cifar10", 60),
    Family("stylegan2_folder", 60),
    Family("stylegan2_ada_cifar10", 60),
    Family("stylegan2_diffaugment_cifar10", 60),
    Family("stylegan2_apa_folder", 60),
    Family("stylegan3_t_folder", 25, f"{QUICK} optimizer.generator.lr=2e-3 optimizer.discriminator.lr=2e-3"),
    Family(  # the paper's gamma is for CIFAR-10; with it a run of this length has not told the digits apart
        "r3gan_cifar10",
        60,
        "batch_size=32 optimizer.generator.lr=5e-4 optimizer.discriminator.lr=5e-4 schedule.end_kimg=20 "
        "ema.half_life_kimg.final=3 augment.p.final=0.2 penalty.r1.gamma.initial=0.5 penalty.r1.gamma.final=0.05 "
        "penalty.r2.gamma.initial=0.5 penalty.r2.gamma.final=0.05",
    ),
    Family("fastgan_few_images", 2, FEW_ROUNDS),
]


def words_for(family: Family, data: str, root: str) -> list[str]:
    """Overrides that train the family on `data`."""
    schema.register()
    resolvers.register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        facts = compose("train", [f"data={data}"]).data
        recipe = compose("train", [f"experiment={family.recipe}", f"data={data}"], return_hydra_config=True)
    size, small = SMALL[recipe.hydra.runtime.choices.model]
    words = [f"experiment={family.recipe}", f"data={data}", f"total_kimg={family.kimg:g}"]
    words += [f"~data.{key}" for key in recipe.data if key not in facts]
    words += [
        f"data.{key}={json.dumps(value)}" for key, value in facts.items() if recipe.data.get(key) != value
    ]
    words = [word for word in words if not word.startswith(("data.image_size=", "data.root="))]
    if data == "mnist":
        words += [f"data.root={root}", "data.resize=pad", *(["data.resize=lanczos"] if size > 32 else [])]
        size = max(size, 32)
    words += [f"data.image_size={size}", *small.split(), *family.words.split()]
    if recipe.augment and "speed_kimg" in recipe.augment:
        words.append("augment.speed_kimg=50")
    return words


def train(words: list[str], seed: int, folder: Path) -> dict[str, Any]:
    """A run's figures, sizes and speed."""
    command = [sys.executable, "-m", "ganforge", "train", *words, f"seed={seed}", "logger=csv", "trainer=cpu"]
    command += [
        "callbacks.evaluation.every_kimg=0",
        "callbacks.samples.every_kimg=0",
        "callbacks.samples.rows=10",
    ]
    command += ["callbacks.log.progress=false", f"hydra.run.dir={folder}"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    script = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    script += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    script += "print('CPU seconds', used.ru_utime + used.ru_stime); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", script, *command], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}\n{done.stderr}")
    run = RunFolder(folder)
    sizes = re.search(r"generator ([\d,]+), discriminator ([\d,]+) parameters", done.stderr)
    assert sizes is not None
    speeds = run.curves["train/images_per_second"].values
    return {
        "sizes": [int(size.replace(",", "")) for size in sizes.groups()],
        "fid_real_halves": round(run.scores["fid_real_halves"], 4),
        "scores": {
            **{name: round(run.scores[key], 5) for name, key in FIGURES.items()},
            "images_per_second": round(statistics.median(speeds)),
            "cpu_seconds": round(float(done.stdout.split()[-1])),
        },
    }


def keep_picture(run: Path, file: Path) -> None:
    """The run's last grid of samples, about 320 pixels wide, in grey."""
    last = max((run / "samples").glob("*_kimg.png"))
    with Image.open(last) as grid:
        factor = 320 / grid.width
        how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
        scaled = round(factor) if factor >= 1 else 1 / round(1 / factor)
        size = (round(grid.width * scaled), round(grid.height * scaled))
        file.parent.mkdir(parents=True, exist_ok=True)
        grid.convert("L").resize(size, how).save(file, optimize=True)


def measured() -> dict[str, Any]:
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}


def shown(words: list[str]) -> str:
    """The settings as a line, without where the data lie."""
    return " ".join(word for word in words if not word.startswith("data.root="))


writing = threading.Lock()


def note(data: str, family: Family, words: list[str], seed: int, found: dict[str, Any], about: str) -> None:
    with writing:
        everything = measured()
        section = everything.setdefault(data, {"about": "", "recipes": {}})
        section["about"] = about
        section["fid_real_halves"] = found["fid_real_halves"]
        settings = shown(words)
        entry = section["recipes"].setdefault(family.recipe, {"seeds": {}})
        if entry.get("settings") != settings:
            entry["seeds"] = {}
        entry |= {"settings": settings, "parameters": found["sizes"], "kimg": family.kimg}
        entry["seeds"][str(seed)] = found["scores"]
        order = [known.recipe for known in FAMILIES]
        section["recipes"] = dict(sorted(section["recipes"].items(), key=lambda item: order.index(item[0])))
        MEASURED.write_text(json.dumps(everything, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--root", default="data", help="the folder that holds MNIST/raw")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[family.recipe for family in FAMILIES])
    parser.add_argument("--again", action="store_true", help="train what is measured already")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    chosen = [family for family in FAMILIES if not arguments.only or family.recipe in arguments.only]
    about = header(seed="0 and on, as many as the table says")
    recipes = [(family, words_for(family, arguments.data, arguments.root)) for family in chosen]

    def run(job: tuple[Family, list[str], int]) -> str | None:
        family, words, seed = job
        known = measured().get(arguments.data, {}).get("recipes", {}).get(family.recipe, {})
        if not arguments.again and known.get("settings") == shown(words) and str(seed) in known["seeds"]:
            return None
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = train(words, seed, Path(folder) / "run")
            except RuntimeError as error:
                print(f"{family.recipe}, seed {seed}: {error}", file=sys.stderr, flush=True)
                return family.recipe
            if seed == 0:
                suffix = "" if arguments.data == "digits" else f"_{arguments.data}"
                keep_picture(Path(folder) / "run", PICTURES / f"{family.recipe}{suffix}.png")
        note(arguments.data, family, words, seed, found, about)
        figures = ", ".join(f"{name} {value:.3g}" for name, value in found["scores"].items())
        print(f"{family.recipe}, seed {seed}: {figures}", flush=True)
        return None

    jobs = [(family, words, seed) for seed in range(arguments.seeds) for family, words in recipes]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        failed = [recipe for recipe in pool.map(run, jobs) if recipe]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
