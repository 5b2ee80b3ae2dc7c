"""Runs every measured comparison, and writes their tables to docs/benchmarks.md, of a GPU to docs/benchmarks_gpu.md.

python bench/run_all.py [--quick] [--only loop start ...] [--mnist FOLDER] [--out docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import ast
import datetime
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent

# Arguments of each script: in full, and for a short pass.
SCRIPTS: dict[str, tuple[list[str], list[str]]] = {
    "start": ([], ["--times", "2"]),
    "loop": ([], ["--windows", "5", "--seconds", "0.3", "--rounds", "3000"]),
    "fast": ([], ["--windows", "4", "--seconds", "0.5", "--models", "sngan_32"]),
    "fast_quality": ([], ["--seeds", "1", "--kimg", "40", "--settings", "none", "all"]),
    "networks": ([], ["--rounds", "2"]),
    "loader": ([], ["--images", "500", "--windows", "2"]),
    "ddp_designs": ([], ["--windows", "3"]),
    "scaling": ([], ["--only-counts"]),
    "rivals": ([], ["--windows", "4", "--seconds", "0.5"]),
    "evaluation": ([], ["--extractor", "digits", "--rounds", "2"]),
    "time_to_quality": ([], ["--quick"]),
    "stacked_mnist": (["--kimg", "200"], ["--kimg", "2", "--width", "8", "--samples", "500"]),
    "resume": ([], ["--kills", "5"]),
    "report": ([], ["--runs", "20", "--times", "2"]),
}

OWN_PAGES = (
    "zoo",
    "few_images",
    "health",
    "sweep",
)  # studies of an hour and more, that write docs/zoo.md, few_images.md, health.md and sweeps.json


def summary(script: Path) -> str:
    """The first paragraph of a script's docstring."""
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer windows, models and seeds: minutes, not an hour"
    )
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--mnist", default="data", help="the folder that holds MNIST/raw")
    file = "benchmarks_gpu.md" if torch.cuda.is_available() else "benchmarks.md"
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / file)
    arguments = parser.parse_args()
    how = "a short pass (`python bench/run_all.py --quick`)" if arguments.quick else "`make bench`"
    today = datetime.date.today().isoformat()
    parts = [
        f"# Benchmarks\n\nWritten by {how} on {today}. `python bench/NAME.py --help` says what each measures, and how."
    ]
    failed = []
    for name in arguments.only:
        words = SCRIPTS[name][1 if arguments.quick else 0]
        if name == "time_to_quality":
            words = [*words, "--mnist", arguments.mnist]
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.monotonic()
        command = [sys.executable, str(HERE / f"{name}.py"), *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        took = f"{time.monotonic() - start:.0f} s"
        if done.returncode:
            failed.append(name)
            print(f"{name} failed after {took}", file=sys.stderr)
            continue
        print(done.stdout)
        shown = done.stdout.strip()
        if "|---" not in shown:  # no Markdown
            shown = f"```\n{shown}\n```"
        typed = " ".join(["python", f"bench/{name}.py", *words])
        parts.append(f"## {name}\n\n{summary(HERE / f'{name}.py')} (`{typed}`, {took})\n\n{shown}")
        arguments.out.write_text("\n\n".join(parts) + "\n")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
