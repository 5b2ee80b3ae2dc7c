"""Images/s, peak memory and share of the device's matrix product peak that training reaches, by `ganforge profile`.

Networks as their papers have them, on a GPU; on a CPU at a quarter of the width and with small batches, as otherwise
nothing would come of it within minutes. The fast settings are those that fit the device.

python bench/networks.py [--models dcgan_64 sngan_32 biggan_32] [--rounds 10] [WORD ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ganforge.commands.options import config_folder
from header import header

ON_GPU = torch.cuda.is_available()
MODELS: dict[str, tuple[list[str], int, int]] = {  # words, batch size, width of the paper
    "dcgan_64": (["model=dcgan", "data.image_size=64"], 128, 128),
    "sngan_32": (["model=sngan", "data.image_size=32"], 64, 256),
    "biggan_32": (["model=biggan", "data.image_size=32"], 50, 96),
}
SETTINGS = {"default": [], "fast.all": ["fast.all=true"]}


def profile(words: list[str], rounds: int) -> dict[str, float]:
    """profile.json of `ganforge profile WORDS`."""
    with tempfile.TemporaryDirectory() as folder:
        common = [
            f"trainer={'default' if ON_GPU else 'cpu'}",
            "metrics=none",
            "logger=csv",
            f"rounds={rounds}",
        ]
        command = [sys.executable, "-m", "ganforge", "profile", *common, *words, f"out={folder}/profile"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        found: dict[str, float] = json.loads((Path(folder) / "profile" / "profile.json").read_text())
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    there = [name for name in MODELS if (config_folder() / "model" / f"{name.split('_')[0]}.yaml").exists()]
    parser.add_argument("--models", nargs="+", choices=there, default=there)
    parser.add_argument("--rounds", type=int, default=20 if ON_GPU else 3)
    arguments, extra = parser.parse_known_args()
    torch.set_num_threads(1)
    print(header(seed=0))
    print(
        "\n| networks | settings | batch | img/s | peak memory, GB | TFLOP/s | of the peak |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in arguments.models:
        words, batch_size, width = MODELS[name]
        if not ON_GPU:
            batch_size, width = batch_size // 8, width // 4
        widths = [f"model.{player}.width={width}" for player in ("generator", "discriminator")]
        for settings, more in SETTINGS.items():
            found = profile([*words, *widths, f"batch_size={batch_size}", *more, *extra], arguments.rounds)
            memory = found["memory"]["device_peak_bytes" if ON_GPU else "process_peak_bytes"]
            print(
                f"| {name} | {settings} | {batch_size} | {found['images_per_second']:,.0f} | {memory / 2**30:.2f} | "
                f"{found['flops_per_second'] / 1e12:.3f} | {found['share_of_matmul_peak']:.0%} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
