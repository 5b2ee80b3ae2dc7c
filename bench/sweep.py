"""TPE against random search on the digits: the best FID of each after the same time, both with pruning and two jobs.

For each seed TPE plays its trials, about 20 s each on one core, and random search then as many as it can in the time
that TPE took. A search is measured in one go; those that --out holds are not run again, so that the comparison can be
made in parts, by several calls or with --seeds 3,4.

python bench/sweep.py [--seeds 0,1,2,3,4] [--trials 40] [--jobs 2] [--out docs/sweeps.json] [--quick] [WORD ...]
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from header import header

SPACE = (
    "loss=hinge,nonsaturating,least_squares,relativistic",
    "optimizer.generator.lr=tag(log,interval(1e-5,1e-2))",
    "optimizer.discriminator.lr=tag(log,interval(1e-5,1e-2))",
    "optimizer.generator.betas=choice([0.0,0.9],[0.5,0.999],[0.9,0.999])",
    "batch_size=32,64,128",
    "ema.half_life_kimg=tag(log,interval(0.5,20))",
    "model.discriminator.dropout=interval(0.0,0.5)",
)
COMMON = ("metrics.compute=[fid]", "callbacks.samples=null", "logger=csv", "trainer=cpu", "total_kimg=12")
PRUNING = ("sweep.pruner=median", "sweep.pruner.startup_trials=5", "sweep.pruner.warmup_kimg=3")
MANY = 400  # trials of random search, which ends by its time
SEARCHES = {"tpe": "TPE", "random": "random"}


def search(
    sampler: str, seed: int, trials: int, jobs: int, words: Sequence[str], seconds: float | None
) -> dict[str, Any]:
    """Plays a search to its end, or for so many seconds, and says what it found and when."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "sweep"
        command = [
            sys.executable,
            "-m",
            "ganforge",
            "train",
            "sweep=optuna",
            *SPACE,
            *COMMON,
            *PRUNING,
            *words,
        ]
        command += [f"sweep.sampler={sampler}", f"sweep.seed={seed}", f"sweep.n_jobs={jobs}"]
        command += [f"sweep.n_trials={trials}", f"hydra.sweep.dir={sweep}"]
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        curve: list[list[float]] = []
        while process.poll() is None:
            now = time.monotonic() - begun
            best = best_of(sweep)
            if best is not None and (not curve or best < curve[-1][1]):
                curve.append([round(now, 1), best])
            if seconds is not None and now >= seconds:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.2)
        taken = time.monotonic() - begun
        _, err = process.communicate()
        if process.returncode not in (0, 128 + signal.SIGTERM):
            sys.exit(err)
        states = [trial["state"] for trial in trials_of(sweep)]
    counts = {state: states.count(state) for state in ("complete", "pruned", "fail")}
    return {"sampler": sampler, "seed": seed, "seconds": round(taken, 1), "trials": counts, "curve": curve}


def trials_of(sweep: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads((sweep / "trials.json").read_text())["trials"]
    except FileNotFoundError:
        return []
    return found


def best_of(sweep: Path) -> float | None:
    values = [trial["values"][0] for trial in trials_of(sweep) if trial["values"]]
    return min(values, default=None)


def table(results: Sequence[dict[str, Any]]) -> str:
    """A row a seed, and what follows from them."""
    lines = [
        "| seed | seconds | TPE: trials, pruned | FID | random: trials, pruned | FID |",
        "|---|---|---|---|---|---|",
    ]
    better, both = 0, []
    for seed in sorted({result["seed"] for result in results}):
        found = {result["sampler"]: result for result in results if result["seed"] == seed}
        if set(found) != set(SEARCHES):
            continue
        cells = [str(seed), f"{found['tpe']['seconds']:.0f}"]
        for sampler in SEARCHES:
            counts = found[sampler]["trials"]
            cells += [f"{sum(counts.values())}, {counts['pruned']}", f"{best(found[sampler]):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
        both.append([best(found[sampler]) for sampler in SEARCHES])
        better += both[-1][0] < both[-1][1]
    if both:
        medians = [statistics.median(values) for values in zip(*both, strict=True)]
        said = f"medians {medians[0]:.3f} and {medians[1]:.3f}"
        lines.append(f"\nTPE's best FID is lower for {better} of {len(both)} seeds; {said}.")
    return "\n".join(lines)


def best(result: dict[str, Any]) -> float:
    return float(result["curve"][-1][1]) if result["curve"] else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "sweeps.json")
    parser.add_argument("--quick", action="store_true", help="one seed and few short trials, into no file")
    arguments, words = parser.parse_known_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    trials, out = arguments.trials, arguments.out
    if arguments.quick:
        seeds, trials, out = seeds[:1], 3, None
        words = ["total_kimg=1", "sweep.pruner.startup_trials=1", "sweep.pruner.warmup_kimg=0.2", *words]
    kept = json.loads(out.read_text()) if out and out.exists() else {"made_by": [], "results": []}
    results = kept["results"]
    made_by = header(seed=", ".join(map(str, seeds)))
    for seed in seeds:
        done = {result["sampler"]: result for result in results if result["seed"] == seed}
        for sampler in SEARCHES:
            if sampler in done:
                continue
            # Random search has the time that TPE took.
            seconds = None if sampler == "tpe" else done["tpe"]["seconds"]
            asked = trials if sampler == "tpe" else MANY
            done[sampler] = search(sampler, seed, asked, arguments.jobs, words, seconds)
            results.append(done[sampler])
            print(
                f"seed {seed}, {SEARCHES[sampler]}: {json.dumps(done[sampler])}", file=sys.stderr, flush=True
            )
            if out:
                kept["made_by"] = [*dict.fromkeys([*kept["made_by"], made_by])]
                out.write_text(json.dumps(kept, indent=1) + "\n")
    print(made_by)
    print(f"{trials} trials of TPE, {arguments.jobs} at a time; random search for the same time.\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
