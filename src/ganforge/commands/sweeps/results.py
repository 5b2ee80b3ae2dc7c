"""What a search leaves: trials.json, a table on the screen, and its best point as an experiment."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from ganforge.commands.scores import ARROWS
from ganforge.commands.sweeps.study import SharedStudy

if TYPE_CHECKING:
    from ganforge.commands.sweeps.search import Plan

_ROWS = 10
_BETTER = {"minimize": "lower", "maximize": "higher"}


def write_trials(path: Path, study: SharedStudy, sampler: str, plan: Plan) -> None:
    """All trials as plain data, whole at any time."""
    result = {
        "study": study.name,
        "sampler": sampler,
        "metrics": list(plan.metrics),
        "directions": study.directions,
        "n_trials": study.n_trials,
        "trials": [_facts(trial, plan) for trial in study.trials()],
    }
    write_among_others(path, json.dumps(result, indent=1) + "\n")


def write_among_others(path: Path, text: str) -> None:
    """A whole file at any time, also where several drivers write it at once."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text)
    os.replace(temporary, path)


def _facts(trial: FrozenTrial, plan: Plan) -> dict[str, Any]:
    complete = trial.state == TrialState.COMPLETE
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "params": dict(trial.params),
        "values": list(trial.values) if complete else None,
        "spreads": trial.user_attrs.get("spreads"),
        "reports": [[images / 1000, value] for images, value in sorted(trial.intermediate_values.items())],
        "folders": plan.names(trial.number),
        "error": trial.user_attrs.get("error") if trial.state == TrialState.FAIL else None,
    }


def summary(trial: FrozenTrial, metrics: Sequence[str]) -> str:
    """How a finished trial ended, in a line."""
    if trial.state == TrialState.COMPLETE:
        return ", ".join(_figures(trial, metrics))
    if trial.state == TrialState.PRUNED:
        images = max(trial.intermediate_values, default=0)
        value = trial.intermediate_values.get(images)
        return f"pruned at {images / 1000:g} kimg, {metrics[0]} {value:.4g}"
    return str(trial.user_attrs.get("error", "failed"))


def _figures(trial: FrozenTrial, metrics: Sequence[str]) -> list[str]:
    spreads = trial.user_attrs.get("spreads") or [None] * len(metrics)
    return [
        f"{metric} {value:.4g}" + (f" ± {spread:.2g}" if spread is not None else "")
        for metric, value, spread in zip(metrics, trial.values, spreads, strict=True)
    ]


def show(study: SharedStudy, plan: Plan) -> None:
    """The best trials as a table, and how the others ended."""
    trials = study.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = {trial.number for trial in study.best()}
    several = len(plan.metrics) > 1
    sign = 1 if study.directions[0] == "minimize" else -1
    ordered = sorted(complete, key=lambda t: (several and t.number not in best, sign * t.values[0]))
    table = Table()
    table.add_column("trial", justify="right")
    for metric, direction in zip(plan.metrics, study.directions, strict=True):
        table.add_column(f"{metric} {ARROWS[_BETTER[direction]]}", justify="right")
    for name in plan.space.dimensions:
        table.add_column(name)
    for trial in ordered[:_ROWS]:
        figures = [
            figure.removeprefix(f"{metric} ")
            for figure, metric in zip(_figures(trial, plan.metrics), plan.metrics, strict=True)
        ]
        points = [_short(trial.params[name]) for name in plan.space.dimensions]
        table.add_row(f"{trial.number}{' *' if trial.number in best else ''}", *figures, *points)
    console = Console(soft_wrap=True, highlight=False)
    counts = {
        state: sum(trial.state == state for trial in trials)
        for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    }
    said = ", ".join(f"{count} {_WORDS[state]}" for state, count in counts.items() if count)
    console.print(f"study {study.name}: {said or 'no trial has ended'}", markup=False)
    if ordered:
        console.print(table)
        marked = "* none is better in all figures" if several else "* the best"
        rest = f"; {len(ordered) - _ROWS} more in trials.json" if len(ordered) > _ROWS else ""
        console.print(marked + rest)


_WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
