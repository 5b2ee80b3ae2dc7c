"""A tenth of the digits, or of MNIST, to learn from: without help, and with DiffAugment, ADA, APA and LeCam.

The rest is held out: `held_out=...` has training log how far the discriminator overfits, and FID is against it. Writes
docs/few_images.json, docs/few_images.md and docs/figures/few_images.png; what is in the first already is not trained
again. Needs matplotlib: pip install 'ganforge[docs]'.

python bench/few_images.py [--data digits|mnist] [--root data] [--seeds 3] [--kimg 30] [--jobs 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from ganforge.datasets.digits import digits
from ganforge.datasets.standard import mnist
from ganforge.runs import RunFolder
from header import header

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, PAGE, FIGURE = DOCS / "few_images.json", DOCS / "few_images.md", DOCS / "figures" / "few_images.png"
COMMON = "model=dcgan model.generator.width=32 model.discriminator.width=32 loss=nonsaturating batch_size=32 "
COMMON += "optimizer.generator.lr=5e-4 optimizer.discriminator.lr=5e-4"
PLAIN = "penalty=[r1]"
GAMMA = {"digits": 0.01, "mnist": 1.0}  # with 0.01 MNIST becomes one picture a class: FID 9.4, recall 0
HELPS = {
    "nothing": PLAIN,
    "DiffAugment": f"{PLAIN} augment=diffaugment",
    "ADA": f"{PLAIN} augment=ada augment.speed_kimg=20",
    "APA": f"{PLAIN} augment=apa augment.speed_kimg=20",
    "LeCam": f"{PLAIN.replace('r1]', 'r1,lecam]')}",
}
COLUMNS = {"fid": "FID", "recall": "recall", "r_v": "r_v", "r_t": "r_t", "p": "p at the end"}


def split(data: str, root: str, folder: Path) -> dict[str, Path]:
    """Files of a tenth of every class, the same at each call, and of the rest."""
    samples = digits() if data == "digits" else mnist(root, image_size=32, resize="pad")
    shuffled = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    chosen: list[int] = []
    for label in range(10):
        of_class = shuffled[samples.labels[shuffled] == label]
        chosen += of_class[: round(len(of_class) / 10)].tolist()
    rest = sorted(set(range(len(samples))) - set(chosen))
    files = {}
    for name, index in (("train", sorted(chosen)), ("held_out", rest)):
        files[name] = folder / f"{name}.npz"
        images = samples.data[index].permute(0, 2, 3, 1).numpy()
        np.savez(files[name], images, samples.labels[index].numpy())
    return files


def ganforge(*words: str) -> None:
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "ganforge", *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"ganforge {' '.join(words)}\n{done.stderr}")


def learn(data: str, help: str, seed: int, kimg: float, files: dict[str, Path], run: Path) -> dict[str, Any]:
    metrics = "digits" if data == "digits" else "domain"
    words = [
        *COMMON.split(),
        *HELPS[help].split(),
        f"penalty.r1.gamma={GAMMA[data]}",
        f"seed={seed}",
        f"total_kimg={kimg:g}",
        "trainer=cpu",
    ]
    words += ["data=array", f"data.root={files['train']}", f"held_out={files['held_out']}", "metrics=none"]
    words += ["logger=csv", "callbacks.log.progress=false", "callbacks.samples=null", f"hydra.run.dir={run}"]
    ganforge("train", *words)
    last = run / "checkpoints" / "last.ckpt"
    scores = run / "scores_held_out"
    ganforge(
        "evaluate",
        f"checkpoint={last}",
        f"real={files['held_out']}",
        f"metrics={metrics}",
        f"out={scores}.json",
    )
    figures = json.loads(Path(f"{scores}.json").read_text())["scores"]
    curves = RunFolder(run).curves
    r_v, r_t = curves["overfitting/r_v"], curves["overfitting/r_t"].values
    controlled = [curves[key].values[-1] for key in curves if key.endswith("_p")]
    curve = list(zip(r_v.kimg, r_v.values, strict=True))
    late = [value for kimg, value in curve if kimg > 0.8 * curve[-1][0]]
    return {
        "fid": figures["fid"],
        "recall": figures["recall"],
        "r_v": mean(late),
        "r_t": mean(r_t[-len(r_t) // 5 :]),
        "p": controlled[-1] if controlled else None,
        "curve": [[round(kimg, 2), round(value, 3)] for kimg, value in curve],
    }


def row_of(help: str, runs: dict[str, Any]) -> str:
    cells = [help]
    for column in COLUMNS:
        values = [run[column] for run in runs.values() if run[column] is not None]
        spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
        cells.append(f"{mean(values):.3g}{spread}" if values else "")
    return f"| {' | '.join([*cells, str(len(runs))])} |"


PAGE_TOP = """# Few images

Made by `python bench/few_images.py`: a small conditional DCGAN with R1 (gamma 0.01 for the digits, 1 for MNIST) learns
from a tenth of the data, without help and with each of four remedies; the rest is held out.

- FID and recall are of samples of the generator's average against the held-out images, by the digits extractor (MNIST:
  by a classifier of its own).
- r_v = (E[D(train)] - E[D(held out)]) / (E[D(train)] - E[D(generated)]), of the discriminator's logits on plain images
  (Karras et al. 2020, arXiv 2006.06676): 0 where held-out images look to it as those it learns from, 1 where they look
  like fakes. `held_out=...` has training log it as `overfitting/r_v`; the figure shows it over time, the table the mean
  of the last fifth.
- r_t = E[sign(D(train))], likewise: `overfitting/r_t`. ADA and APA steer that of what the discriminator is shown
  towards 0.6 by their p."""


def write_page(results: dict[str, Any]) -> None:
    parts = [PAGE_TOP]
    for data, section in results.items():
        lines = [f"| help | {' | '.join(COLUMNS.values())} | seeds |", "|---" * (len(COLUMNS) + 2) + "|"]
        lines += [row_of(help, section["runs"][help]) for help in HELPS if help in section["runs"]]
        shown = "digits: 180 images" if data == "digits" else "MNIST: 6,000 images"
        parts.append(
            f"## A tenth of the {shown}\n\n{section['kimg']:g} kimg. {section['about']}\n\n"
            + "\n".join(lines)
        )
    parts.append("![r_v, how far the discriminator overfits, against kimg](figures/few_images.png)")
    PAGE.write_text("\n\n".join(parts) + "\n")


def draw(results: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(results), figsize=(6.4 * len(results), 3.4), layout="constrained", squeeze=False
    )
    for position, (data, section) in zip(axes[0], results.items(), strict=True):
        for help, runs in section["runs"].items():
            kimg, values = zip(*runs[min(runs)]["curve"], strict=True)
            smooth = [mean(values[max(0, at - 4) : at + 1]) for at in range(len(values))]
            position.plot(kimg, smooth, label=help, linewidth=1.3)
        position.axhline(1, color="0.6", linewidth=0.8, linestyle="--")
        position.set_ylim(-0.1, 1.6)
        position.set_title(f"a tenth of {data}", fontsize=10)
        position.set_xlabel("thousands of real images seen (kimg)")
        position.set_ylabel("r_v, mean of five entries")
        position.grid(alpha=0.3)
        position.legend(frameon=False)
    figure.savefig(FIGURE, dpi=90)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--root", default="data", help="the folder that holds MNIST/raw")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kimg", type=float, default=30.0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    fresh = {
        "about": header(seed=", ".join(map(str, range(arguments.seeds)))),
        "kimg": arguments.kimg,
        "runs": {},
    }
    section = results.setdefault(arguments.data, fresh)
    if section["kimg"] != arguments.kimg:
        section = results[arguments.data] = fresh
    writing = threading.Lock()

    with tempfile.TemporaryDirectory() as folder:
        files = split(arguments.data, arguments.root, Path(folder))

        def run(job: tuple[int, str]) -> None:
            seed, help = job
            if str(seed) in section["runs"].get(help, {}):
                return
            found = learn(arguments.data, help, seed, arguments.kimg, files, Path(folder) / f"{help}_{seed}")
            with writing:
                section["runs"].setdefault(help, {})[str(seed)] = found
                RESULTS.write_text(json.dumps(results) + "\n")
                print(row_of(help, {str(seed): found}), flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(run, [(seed, help) for seed in range(arguments.seeds) for help in HELPS]))
    draw(results)
    write_page(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
