"""What the checks of a run's health say of healthy recipes, which is to be nothing, and of built-in failures.

Each of HEALTHY and of FAILURES is trained on the digits for 20 kimg with the checks as they are set by default. Figures
go to docs/health.json, and tables of them into docs/health.md; what is in the first already is not trained again.
`--cost` measures what the checks cost: the same run with and without them, in turn.

python bench/health.py [--seeds 0] [--only NAME ...] [--keep FOLDER] [--cost [--pairs 5]]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganforge.datasets.digits import digits
from ganforge.datasets.samples import TensorSamples
from ganforge.losses.hinge import Hinge
from ganforge.networks import dcgan
from header import header

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE.parent / "docs" / "health.json", HERE.parent / "docs" / "health.md"
KIMG = 20
QUIET = "trainer=cpu logger=csv callbacks.log.progress=false callbacks.samples=null"

# Recipes of bench/zoo.py whose networks see the digits as they are, 8x8.
HEALTHY = [
    "digits",
    "gan_mnist",
    "cgan_mnist",
    "dcgan_cifar10",
    "lsgan_cifar10",
    "ragan_cifar10",
    "wgan_cifar10",
    "wgan_gp_cifar10",
    "dragan_cifar10",
    "acgan_cifar10",
    "infogan_mnist",
    "bigan_mnist",
    "cogan_mnist",
    "mad_gan_mnist",
    "began_folder",
    "ebgan_mnist",
    "r3gan_cifar10",
    "progan_cifar10",
    "stylegan2_cifar10",
    "stylegan2_ada_cifar10",
]

BASE = "model.generator.width=32 model.discriminator.width=32 batch_size=32 optimizer.generator.lr=1e-3 "
BASE += "optimizer.discriminator.lr=1e-3"


@dataclass(frozen=True)
class Failure:
    """Something built in that goes wrong, and the checks of which one at least is to name it."""

    what: str
    words: str
    named_by: tuple[str, ...]


FAILURES = {
    "learning_rate": Failure(
        "learning rates x100",
        "optimizer.generator.lr=0.1 optimizer.discriminator.lr=0.1",
        ("steps_too_large", "nonfinite", "gradient_explosion", "spectral_norm"),
    ),
    "no_d_updates": Failure(
        "the discriminator is never updated", "optimizer.discriminator.lr=0", ("not_learning",)
    ),
    "collapsed_g": Failure(
        "the generator gives one image a class",
        "model.generator._target_=health.Collapsed",
        ("mode_collapse", "duplicates"),
    ),
    "label_noise": Failure(
        "half of the labels real and fake are swapped by lot, for the discriminator",
        "loss._target_=health.LabelNoise",
        ("discriminator_too_weak",),
    ),
    "class_noise": Failure("the digits' classes are shuffled", "DATA=shuffled", ("classes_ignored",)),
    "tiny_data": Failure(
        "20 images to learn from, 400 held out",
        "DATA=tiny held_out={folder}/held_out.npz",
        ("overfitting", "sure_of_real", "memorisation"),
    ),
    "wrong_range": Failure(
        "pixels from 0 to 16, where 255 is white", "DATA=dark", ("pixels_narrow", "pixels_outside")
    ),
    "frozen_g": Failure("the generator is never updated", "optimizer.generator.lr=0", ("not_learning",)),
    "dead_loader": Failure(
        "no batch comes any more after about 12,000 images", "data._target_=health.dying", ("dead_loader",)
    ),
}


class Collapsed(dcgan.Generator):
    """Takes no notice of z."""

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(z), labels)


class LabelNoise(Hinge):
    """Half of the images are told to be of the other kind."""

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        swapped = torch.rand_like(real_logits) < 0.5
        real, fake = (
            torch.where(swapped, one, other)
            for one, other in ((fake_logits, real_logits), (real_logits, fake_logits))
        )
        return super().discriminator_loss(real, fake)


class Dying(TensorSamples):
    """Delivers so many images, to evaluation as well, and then nothing."""

    left = 12000

    def batch(self, indices: Tensor) -> Tensor:
        self.left -= len(indices)
        while self.left < 0:
            time.sleep(1)
        return super().batch(indices)


def dying(image_size: int, channels: int, num_classes: int) -> Dying:
    """The digits, on a disk that fails."""
    whole = digits(image_size, channels, num_classes)
    return Dying(whole.name, whole.data, whole.labels, whole.class_names)


def data_files(folder: Path) -> None:
    """What the failures of data are trained on."""
    whole = digits()
    images, labels = whole.data.permute(0, 2, 3, 1).numpy(), whole.labels.numpy()
    chosen = np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(10)])
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    shuffled = np.random.default_rng(0).permutation(labels)
    np.savez(folder / "tiny.npz", images[chosen], labels[chosen])
    np.savez(folder / "held_out.npz", images[rest[:400]], labels[rest[:400]])
    np.savez(folder / "shuffled.npz", images, shuffled)
    np.savez(folder / "dark.npz", images // 16, labels)


def words_of(name: str, folder: Path) -> list[str]:
    if name in FAILURES:
        words = f"{BASE} {FAILURES[name].words}".replace("{folder}", str(folder))
        words = re.sub(r"DATA=(\w+)", rf"data=array data.root={folder}/\1.npz metrics=digits", words)
        return words.split()
    import zoo

    (family,) = [family for family in zoo.FAMILIES if family.recipe == name]
    words = [word for word in zoo.words_for(family, "digits", "data") if not word.startswith("total_kimg")]
    return words


def events(run: Path) -> list[dict[str, Any]]:
    file = run / "health.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def play(name: str, seed: int, folder: Path, run: Path) -> dict[str, Any]:
    """What was said of one run."""
    from resume import start

    words = ["train", *words_of(name, folder), f"seed={seed}", f"total_kimg={KIMG}", *QUIET.split()]
    log = run.with_suffix(".log")
    before = f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
    process = start([*words, f"hydra.run.dir={run}"], log, before=before)
    began = time.monotonic()
    while process.is_alive():
        process.join(1)
        if any(event["check"] == "dead_loader" for event in events(run)):
            process.kill()
            process.join()
    if process.exitcode not in (0, -9) and not (run / "failure.txt").exists():
        raise RuntimeError(log.read_text()[-2000:])
    said = [
        {"kimg": round(event["kimg"], 2), "check": event["check"], "message": event["message"]}
        for event in events(run)
    ]
    return {"events": said, "seconds": round(time.monotonic() - began)}


TIMED = """
import time
import ganforge.commands.train as command
fit = command.fit
def timed(*arguments, **settings):
    start = time.process_time()
    fit(*arguments, **settings)
    open(FILE, "w").write(str(time.process_time() - start))
command.fit = timed
"""
COSTS = {"mlp": 60, "dcgan": 20}  # thousands of images, of as many readings


def cost(pairs: int) -> str:
    """Seconds of CPU that training takes with the checks and without, in turn."""
    from resume import finish

    lines = [
        "| digits | kimg | without, s of CPU | with, s of CPU | ratio of medians |",
        "|---|---|---|---|---|",
    ]
    bare = [*QUIET.split(), "metrics=none", "callbacks.checkpoint.every_kimg=0"]
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "seconds", Path(folder) / "log"
        for model, kimg in COSTS.items():
            taken: dict[bool, list[float]] = {False: [], True: []}
            for number in range(2 * pairs):
                with_checks = number % 2 == 1
                words = [f"model={model}", f"total_kimg={kimg}", f"hydra.run.dir={folder}/{model}{number}"]
                words += bare if with_checks else [*bare, "callbacks.health=null"]
                finish(["train", *words], log, before=f"FILE = {str(file)!r}\n{TIMED}")
                taken[with_checks].append(float(file.read_text()))
            without, checked = (statistics.median(taken[kind]) for kind in (False, True))
            lines.append(f"| {model} | {kimg} | {without:.2f} | {checked:.2f} | {checked / without:.3f} |")
    return "\n".join(lines)


def tables(results: dict[str, Any]) -> dict[str, str]:
    """The two tables, as Markdown."""
    healthy = ["| recipe | seeds | false alarms | what was said |", "|---|---|---|---|"]
    for name in HEALTHY:
        runs = results.get(name, {})
        said = [event for run in runs.values() for event in run["events"]]
        words = "; ".join(f"{event['kimg']:g} kimg: {event['message']}" for event in said)
        healthy.append(
            f"| `{name}` | {', '.join(runs) or 'not run'} | {len(said) if runs else ''} | {words} |"
        )
    failing = ["| failure | how it is made | named | by | at | said beside it |", "|---|---|---|---|---|---|"]
    for name, failure in FAILURES.items():
        runs = results.get(name, {})
        named = [first_naming(run["events"], failure) for run in runs.values()]
        found = [event for event in named if event is not None]
        checks = ", ".join(dict.fromkeys(f"`{event['check']}`" for event in found))
        at = ", ".join(f"{event['kimg']:g} kimg" for event in found)
        others = {event["check"] for run in runs.values() for event in run["events"]} - {
            event["check"] for event in found
        }
        beside = ", ".join(f"`{check}`" for check in sorted(others))
        how = re.sub(r"DATA=(\w+)", r"data=array data.root=\1.npz", failure.words)
        how = how.replace("{folder}/", "").replace("health.", "")
        count = f"{len(found)} of {len(runs)}" if runs else "not run"
        failing.append(f"| {failure.what} | `{how}` | {count} | {checks} | {at} | {beside} |")
    return {"healthy": "\n".join(healthy), "failures": "\n".join(failing)}


def first_naming(events: list[dict[str, Any]], failure: Failure) -> dict[str, Any] | None:
    return next((event for event in events if event["check"] in failure.named_by), None)


def write_page(results: dict[str, Any]) -> None:
    page = PAGE.read_text()
    for name, table in tables(results).items():
        page = re.sub(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", rf"\1{_escaped(table)}\2", page, flags=re.S)
    PAGE.write_text(page)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=[*FAILURES, *HEALTHY], default=[*FAILURES, *HEALTHY])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cost", action="store_true", help="what the checks cost, in place of what they say")
    parser.add_argument("--pairs", type=int, default=5, help="runs with and without them, for --cost")
    parser.add_argument("--keep", type=Path, help="where the runs' folders stay, to look at")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.cost:
        print(header(seed=0))
        print(cost(arguments.pairs))
        return 0
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data_files(folder)
        for name in arguments.only:
            for seed in arguments.seeds:
                runs = results.setdefault(name, {})
                if str(seed) in runs:
                    continue
                run = (arguments.keep or folder) / f"{name}_{seed}"
                run.parent.mkdir(parents=True, exist_ok=True)
                runs[str(seed)] = play(name, seed, folder, run)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
                print(name, seed, f"{runs[str(seed)]['seconds']} s", flush=True)
                for event in runs[str(seed)]["events"]:
                    print(f"    {event['kimg']:g} kimg {event['check']}: {event['message']}", flush=True)
    if arguments.out == RESULTS:
        write_page(results)
    false = sum(len(run["events"]) for name in HEALTHY for run in results.get(name, {}).values())
    print(f"{false} false alarms in {sum(len(results.get(name, {})) for name in HEALTHY)} healthy runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
