"""Images/s of the settings under `fast`, each alone and together, beside the lean loop in float32 without any.

python bench/fast.py [--models dcgan_32 sngan_32] [--windows 7] [--seconds 1.0] [--compile] [WORD ...]
"""

from __future__ import annotations

import argparse
import sys

import torch

from header import header
from loop import MODELS, compare

SETTINGS = {
    "none": [],
    "channels_last": ["fast.channels_last=true"],
    "bf16": ["fast.bf16=true"],
    "fused_pass": ["fast.fused_pass=true"],
    "reuse_fakes": ["fast.reuse_fakes=true"],
    "all": ["fast.all=true"],
    "all and reuse_fakes": ["fast.all=true", "fast.reuse_fakes=true"],
}
COMPILED = {
    "compile": ["fast.compile=true", "fast.fused_pass=true"],
    "all and compile": ["fast.all=true", "fast.compile=true", "fast.fused_pass=true"],
}
NORM = ["model.discriminator.norm=layer"]  # DCGAN's batch norm excludes the fused pass


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["dcgan_32", "sngan_32"])
    parser.add_argument("--windows", type=int, default=7, help="pairs of windows for each setting")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--compile", action="store_true", help="compile too, which takes a minute a model")
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    settings = {**SETTINGS, **(COMPILED if arguments.compile else {})}
    print(header(seed=0))
    print("Times the lean loop's images/s.\n")
    print("| setting | " + " | ".join(arguments.models) + " |\n|---|" + "---|" * len(arguments.models))
    for name, asked in settings.items():
        ratios = []
        for model in arguments.models:
            norm = NORM if model.startswith("dcgan") and any("fused_pass" in word for word in asked) else []
            *_, ratio = compare([*MODELS[model], *asked, *norm, *words], arguments.windows, arguments.seconds)
            ratios.append(f"{ratio:.2f}" + (" (layer norm)" if norm else ""))
        print(f"| {name} | " + " | ".join(ratios) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
