"""FID on digits with each setting under `fast`, beside the float32 run's, over several seeds.

A setting passes where the mean of its FIDs lies no further above the mean without it than twice the standard error of
the difference: the spread of the seeds explains what is left. Each run is a process of its own.

python bench/fast_quality.py [--seeds 3] [--kimg 120] [--settings bf16 all ...] [WORD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from header import header

LAYER_NORM = "model.discriminator.norm=layer"  # the fused pass excludes the recipe's batch norm
SETTINGS = {
    "none": [],
    "channels_last": ["fast.channels_last=true"],
    "bf16": ["fast.bf16=true"],
    "all": ["fast.all=true"],
    "reuse_fakes": ["fast.reuse_fakes=true"],
    "compile": ["fast.compile=true"],
    "none, layer norm": [LAYER_NORM],
    "fused_pass, layer norm": [LAYER_NORM, "fast.fused_pass=true"],
    "all, layer norm": [LAYER_NORM, "fast.all=true"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kimg", type=float, default=120)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    print(f"{header(seed=f'0 to {arguments.seeds - 1}')} The digits recipe, {arguments.kimg:g} kimg.\n")
    print("| setting | FID, mean | FID of each seed | above none | twice its standard error | within |")
    print("|---|---|---|---|---|---|", flush=True)
    usual: list[float] = []
    failed = []
    for name in arguments.settings:
        asked = [f"total_kimg={arguments.kimg:g}", *SETTINGS[name], *words]
        found = [fid([*asked, f"seed={seed}"]) for seed in range(arguments.seeds)]
        usual = found if name.startswith("none") else usual or found
        above = statistics.mean(found) - statistics.mean(usual)
        error = 2 * ((variance(found) + variance(usual)) / arguments.seeds) ** 0.5
        within = above <= error
        if not within:
            failed.append(name)
        each = ", ".join(f"{value:.3f}" for value in found)
        row = f"| {name} | {statistics.mean(found):.3f} | {each} | {above:+.3f} | {error:.3f} |"
        print(f"{row} {'yes' if within else 'no'} |", flush=True)
    return 1 if failed else 0


def variance(values: Sequence[float]) -> float:
    return statistics.variance(values) if len(values) > 1 else 0.0


def fid(words: Sequence[str]) -> float:
    """The final FID of a run of the digits recipe in its own process, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ganforge", "train", *words, f"hydra.run.dir={folder}/run"]
        command += ["logger=csv", "callbacks.log.progress=false"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        return float(json.loads((Path(folder) / "run" / "scores.json").read_text())["scores"]["fid"])


if __name__ == "__main__":
    sys.exit(main())
