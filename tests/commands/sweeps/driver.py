"""A driver of a search over quick jobs, as a program: `driver.py '{"folder": ..., "storage": ..., "words": [...]}'`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser

from ganforge.commands.errors import RunFailedError
from ganforge.commands.lines import log_to_stderr
from ganforge.commands.sweeps.jobs import Jobs
from ganforge.commands.sweeps.search import Plan, Search
from ganforge.commands.sweeps.space import Space, space_of
from ganforge.commands.sweeps.study import SharedStudy, open_storage

JOB = Path(__file__).with_name("quick_job.py")
WORDS = ("x=interval(0,1)",)


def space_from(words: Any) -> Space:
    return space_of(OverridesParser.create().parse_overrides(list(words)))


def search(
    folder: Path,
    storage: str | None = None,
    words: Any = WORDS,
    *,
    n_trials: int = 6,
    n_jobs: int = 1,
    seeds: Any = (),
    metrics: Any = ("fid",),
    sampler: Any = None,
    pruner: Any = None,
    study: str = "test",
    dead_after_seconds: float = 60.0,
) -> SharedStudy:
    """Plays a search to its end, and returns its study."""
    folder.mkdir(parents=True, exist_ok=True)
    space = space_from(words)
    directions = ["minimize" if metric == "fid" else "maximize" for metric in metrics]
    shared = SharedStudy(
        open_storage(storage, folder),
        study,
        directions,  # type: ignore[arg-type]
        n_trials,
        space.distributions,
        sampler=sampler or (lambda number: optuna.samplers.RandomSampler(seed=number)),
        pruner=pruner or optuna.pruners.NopPruner(),
        facts=space.facts(),
        dead_after_seconds=dead_after_seconds,
    )
    plan = Plan(
        folder=folder,
        metrics=metrics,
        sampler="random",
        space=space,
        words=lambda number, words, place: ["train", *words, f"hydra.run.dir='{place}'"],
        seeds=seeds,
    )
    with Jobs(n_jobs, program=[sys.executable, str(JOB)]) as jobs:
        Search(plan, shared, jobs).run()
    return shared


def main() -> int:
    settings = json.loads(sys.argv[1])
    log_to_stderr()
    logging.getLogger("optuna").setLevel(logging.WARNING)
    try:
        search(Path(settings.pop("folder")), **settings)
    except RunFailedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
