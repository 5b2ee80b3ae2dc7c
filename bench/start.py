"""Seconds from typing `ganforge train` to the end of its first round: imports, composition, checks, data, networks.

python bench/start.py [--times 5] [--imports] [WORD ...]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ganforge.training.callbacks.periodic import Periodic
from header import header

BAR_SECONDS = 10.0


class FirstRound(Periodic):
    """Writes when the first round ended, and what the processor had worked until then; ends the run."""

    def __init__(self, file: str) -> None:
        super().__init__(every_kimg=0)
        self.file = Path(file)

    def due(self, module: Any, run: Any) -> bool:
        return True

    def act(self, trainer: Any, module: Any, run: Any) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.file.write_text(f"{time.time()} {usage.ru_utime + usage.ru_stime}")
        run.ended_because = "measured"


def start(words: list[str]) -> tuple[float, float]:
    """Seconds on the wall, and of the processor, until the first round's end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "first"
        callback = f"+callbacks.first={{_target_: start.FirstRound, file: '{file}'}}"
        command = [sys.executable, "-m", "ganforge", "train", *words, callback, f"hydra.run.dir={folder}/run"]
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        before = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not file.exists():
            sys.exit(done.stderr)
        after, worked = map(float, file.read_text().split())
    return after - before, worked


def imports() -> str:
    """The dearest imports of `ganforge train`, each with what it imports."""
    command = [sys.executable, "-X", "importtime", "-c", "import ganforge.commands.train"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    found = sorted((int(line.split("|")[1]), line.split("|")[2].strip()) for line in lines[1:])
    tops = [pair for pair in found if pair[1].count(".") <= 1]
    return "\n".join(f"{microseconds / 1e6:6.2f} s  {name}" for microseconds, name in reversed(tops[-20:]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--imports", action="store_true", help="what is imported, and how long it takes")
    arguments, words = parser.parse_known_args()
    start(words)  # what is not in memory yet is read from the disk
    wall, worked = zip(*(start(words) for _ in range(arguments.times)), strict=True)
    print(header(seed=0))
    print(f"Medians of {arguments.times} starts; the bar is {BAR_SECONDS:g} s.\n")
    print("| command | on the wall, s | the processor's work, s |\n|---|---|---|")
    command = " ".join(["ganforge train", *words])
    print(f"| {command} | {statistics.median(wall):.1f} | {statistics.median(worked):.1f} |")
    if arguments.imports:
        print(f"\n{imports()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
