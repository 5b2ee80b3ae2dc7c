"""A job that takes no time: a process that reports, asks, is pruned, killed and started again as `ganforge train` is.

Its figure is (x - 0.3)^2 plus what is left of 1 after some of 10 evaluations; it keeps what it has in its folder, and
writes a line to `played.log` in the sweep's folder for each evaluation and for its end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import yaml

from ganforge.commands.job_of_a_sweep import goes_on, is_started_again, join_the_sweep, tell_the_sweep

EVALUATIONS = 10

join_the_sweep()
overrides = [word for word in sys.argv[2:] if not word.startswith("hydra.")]
settings = dict(word.lstrip("+").split("=", 1) for word in overrides)
own = dict(word.split("=", 1) for word in sys.argv[2:] if word.startswith("hydra."))
folder = Path(own["hydra.run.dir"].strip("'"))
if (folder / "config.yaml").exists() and not is_started_again():
    tell_the_sweep(error=f"{folder} already holds a run")
    sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
(folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
(folder / "config.yaml").write_text(yaml.safe_dump(settings))

stopped = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: stopped.append(number))


def log(what: str) -> None:
    with (folder.parent / "played.log").open("a") as file:
        file.write(f"{folder.name} {what}\n")


x = (
    float(settings.get("x") or settings.get("optimizer.generator.lr", 0.5))
    + float(settings.get("seed", 0)) / 100
)
wish = settings.get("wish") or settings.get("name")  # a setting that every run has
if wish == "fail":
    tell_the_sweep(error="a bad configuration")
    sys.exit(2)
if wish == "no_number":
    x = float("nan")
progress = folder / "progress"
done = int(progress.read_text()) if progress.exists() else 0


def is_worth_it() -> bool:
    return done in (0, EVALUATIONS) or goes_on({"fid": score(x, done)}, 1000 * done)


def score(x: float, done: int) -> float:
    return (x - 0.3) ** 2 + 1 - done / EVALUATIONS


while is_worth_it() and done < EVALUATIONS:
    if stopped:
        tell_the_sweep(error=f"stopped by {signal.Signals(stopped[0]).name} at {done} kimg")
        sys.exit(128 + stopped[0])
    time.sleep(float(settings.get("pause", 0)))
    if done == 5 and (wish == "die" or (wish == "die_once" and not is_started_again())):
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    progress.write_text(str(done))
    log(f"evaluation {done}")
if done < EVALUATIONS:
    log("pruned")
    tell_the_sweep(returned={"fid": score(x, done)})
    sys.exit(0)
log("end")
print("played", settings.get("x"))
tell_the_sweep(returned={"fid": (x - 0.3) ** 2, "images_per_second": 100.0 * x})
