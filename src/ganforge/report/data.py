"""What the page knows of the runs, as plain data: settings, curves thinned to what a screen shows, grids, events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ganforge import __version__
from ganforge.report.importance import importances
from ganforge.runs import (
    Curve,
    Grid,
    RunFolder,
    Search,
    differing,
    find_runs,
    grouped,
    read_search,
    shown,
)

Pictures = Callable[[RunFolder, Sequence[Grid]], list[list[Any]]]
"""The grids of a run that are shown, each as [kimg, source of an <img>]."""
Link = Callable[[Path], str]

SPEED = "train/images_per_second"
LOSSES = ("train/discriminator/adversarial", "train/generator/adversarial")
POINTS = 100_000  # of all curves together, that a report of a few runs stays far below 10 MB
MOST_POINTS, FEWEST_POINTS = 1000, 50  # of one curve
MAIN_WEIGHT, FEWEST_OF_MAIN = 5, 300  # scores and losses are drawn finer than the rest
FILES = (
    *(
        "config.yaml",
        "overrides.yaml",
        "run.json",
        "metrics.csv",
        "scores.json",
        "health.jsonl",
        "failure.txt",
    ),
    *("samples.webp", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
)


def report_data(folders: Sequence[Path], pictures: Pictures, link: Link) -> dict[str, Any]:
    """All that the page shows.

    Args:
        folders: runs', sweeps', or folders that hold some of those.
        pictures: which sample grids are shown, and where they come from.
        link: the address of a file for the page.

    Raises:
        FileNotFoundError: a folder that does not exist.
        ValueError: there is no run in any of them.
    """
    return Collector(pictures, link).collect(find_runs(folders))


class Collector:
    """Collects again and again, and looks anew only at what has changed."""

    def __init__(self, pictures: Pictures, link: Link) -> None:
        self._pictures, self._link = pictures, link
        self._known: dict[Path, tuple[Any, RunFolder]] = {}
        self._entries: dict[Path, tuple[Any, dict[str, Any]]] = {}
        self._key: Any = None
        self._data: dict[str, Any] = {}

    def collect(self, runs: Sequence[RunFolder]) -> dict[str, Any]:
        """What the page shows of these runs: the same object as before while nothing has changed."""
        runs = [self._fresh(run) for run in runs]
        sweeps = sorted({run.sweep for run in runs if run.sweep is not None})
        searches = [search for search in map(read_search, sweeps) if search]
        key = ([(run.path, run.signature(), run.ending) for run in runs], searches)
        if key != self._key:
            self._key, self._data = key, self._collect(runs, sweeps, searches)
        return self._data

    def _collect(
        self, runs: Sequence[RunFolder], sweeps: Sequence[Path], searches: Sequence[Search]
    ) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for run in runs:
            for name in run.curves:
                counts[name] = counts.get(name, 0) + 1
        weight = sum(count * (MAIN_WEIGHT if _is_main(name) else 1) for name, count in counts.items())
        unit = POINTS / max(weight, 1)
        groups = {run.path: name for name, members in grouped(runs) for run in members}
        settings = [run.settings for run in runs]
        varying = differing(runs)
        asked = {key for run in runs for key in run.asked_keys}
        whole = [run.settings for run in runs if run.config]
        shared = {k: v for k, v in (whole[0] if whole else {}).items() if all(_same(s, k, v) for s in whole)}
        pruned = {
            search.path / folder
            for search in searches
            for trial in search.trials
            if trial.state == "pruned"
            for folder in trial.folders
        }
        entries = []
        for run, own in zip(runs, settings, strict=True):
            entry = dict(self._entry(run, unit))
            entry["group"] = groups[run.path]
            entry["settings"] = {k: _plain(v) for k, v in own.items() if k not in shared or not run.config}
            entry["whole"] = bool(run.config)
            entry["sweep"] = sweeps.index(run.sweep) if run.sweep else None
            if run.path in pruned:
                entry["state"] = "pruned"
            entries.append(entry)
        return {
            "made": datetime.now().astimezone().isoformat(timespec="seconds"),
            "version": __version__,
            "runs": entries,
            "shared": {key: _plain(value) for key, value in shared.items()},
            "differing": varying,
            "asked": [key for key in varying if key in asked],
            "better": {name: side for run in reversed(runs) for name, side in _sides(run).items()},
            "monitor": _commonest([run.monitor for run in runs if run.monitor]),
            "main": [name for name in (*LOSSES, SPEED) if name in counts],
            "figures": sorted(counts),
            "sweeps": [_name(path) for path in sweeps],
            "searches": [_search(search) for search in searches],
        }

    def _fresh(self, run: RunFolder) -> RunFolder:
        """The run as it was read, unless something in its folder has changed; whether it still plays is asked anew."""
        signature = run.signature()
        known = self._known.get(run.path)
        if known and known[0] == signature:
            run = known[1]
            run.__dict__.pop("ending", None)
        self._known[run.path] = (signature, run)
        return run

    def _entry(self, run: RunFolder, unit: float) -> dict[str, Any]:
        unit = 2.0 ** math.floor(math.log2(unit))  # so that a few more curves do not thin every one anew
        key = (run.signature(), unit, run.ending)
        known = self._entries.get(run.path)
        if known is None or known[0] != key:
            known = (key, self._read(run, unit))
            self._entries[run.path] = known
        return known[1]

    def _read(self, run: RunFolder, unit: float) -> dict[str, Any]:
        state, reason = run.ending
        start = run.starts[-1] if run.starts else {}
        speeds = run.curves[SPEED].values if SPEED in run.curves else []
        files = [name for name in FILES if (run.path / name).exists()]
        return {
            "name": run.name,
            "path": str(run.path.resolve()),
            "state": state,
            "reason": reason,
            "problems": run.problems,
            "kimg": run.kimg,
            "total": run.config.get("total_kimg"),
            "speed": _number(statistics.median(speeds)) if speeds else None,
            "scores": {name: _number(value) for name, value in run.scores.items()},
            "final": _is_final(run),
            "protocol": run.protocol,
            "curve_protocols": {
                name: run.curve_protocol(f"{name}/")
                for name in sorted({figure.partition("/")[0] for figure in run.curves})
                if name.startswith("val")
            },
            "best": {
                name: [_number(best[0]), best[1]]
                for name in run.curves
                if name.startswith("val") and (best := run.best(name)) is not None
            },
            "stamp": {key: shown(value) for key, value in _leaves(run.stamp)},
            "asked": run.asked,
            "starts": [
                {
                    key: start.get(key)
                    for key in ("time", "command", "git_commit", "python", "versions", "end")
                }
                for start in run.starts
            ],
            "started": start.get("time"),
            "curves": {name: _points(curve, _share(name, unit)) for name, curve in run.curves.items()},
            "grids": {kind: self._pictures(run, grids) for kind, grids in run.grids.items()},
            "grid_count": len(run.grids.get("samples", [])),
            "health": [
                {
                    **{key: getattr(event, key) for key in ("kimg", "check", "message", "advice", "action")},
                    "value": _number(event.value),
                    "threshold": _number(event.threshold),
                }
                for event in run.health
            ],
            "links": [
                ["folder", self._link(run.path)],
                *([name, self._link(run.path / name)] for name in files),
            ],
        }


def thinned(curve: Curve, points: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points of a curve: its ends, and the lowest and highest value of each stretch between them."""
    kimg, values = np.asarray(curve.kimg, float), np.asarray(curve.values, float)
    if len(values) <= points:
        return kimg, values
    stretches = max((points - 2) // 2, 1)
    length = -(-len(values) // stretches)
    padded = np.full(stretches * length, np.nan)
    padded[: len(values)] = values
    table = padded.reshape(stretches, length)
    first = np.arange(stretches) * length
    low = first + np.where(np.isfinite(table), table, np.inf).argmin(axis=1)
    high = first + np.where(np.isfinite(table), table, -np.inf).argmax(axis=1)
    kept = np.unique(np.concatenate([[0, len(values) - 1], low, high]))
    kept = kept[kept < len(values)]
    return kimg[kept], values[kept]


def _points(curve: Curve, points: int) -> list[list[float | None]]:
    kimg, values = thinned(curve, points)
    return [[float(f"{k:.7g}") for k in kimg.tolist()], [_number(value) for value in values.tolist()]]


def _share(name: str, unit: float) -> int:
    points = unit * MAIN_WEIGHT if _is_main(name) else unit
    return int(min(max(points, FEWEST_OF_MAIN if _is_main(name) else FEWEST_POINTS), MOST_POINTS))


def _is_main(name: str) -> bool:
    return name in LOSSES or (name.startswith("val") and name.endswith("/fid"))


def _number(value: Any) -> float | None:
    """Five figures of a number; None where it is none or not finite, which JSON does not know."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def _plain(value: Any) -> Any:
    """A setting as the page compares and shows it."""
    return value if isinstance(value, int | float) and math.isfinite(value) else shown(value)


def _same(settings: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in settings and settings[key] == value and type(settings[key]) is type(value)


def _is_final(run: RunFolder) -> bool:
    """Whether `scores` are of the run's end."""
    return run.state == "ended" or any(name.startswith("final/") for name in run.curves)


def _sides(run: RunFolder) -> dict[str, str]:
    return {name: run.better(name) for name in run.scores}


def _leaves(stamp: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in stamp.items():
        found += (
            _leaves(value, f"{prefix}{key}/") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
        )
    return found


def _commonest(names: Sequence[str]) -> str:
    return max(names, key=names.count, default="")


def _name(path: Path) -> str:
    return "/".join(path.resolve().parts[-2:])


def _search(search: Search) -> dict[str, Any]:
    return {
        "name": search.study,
        "sampler": search.sampler,
        "folder": _name(search.path),
        "metrics": list(search.metrics),
        "directions": list(search.directions),
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "params": {key: _plain(value) for key, value in trial.params.items()},
                "values": [_number(value) for value in trial.values] if trial.values else None,
                "folders": list(trial.folders),
                "error": trial.error,
            }
            for trial in search.trials
        ],
        "importance": importances(search),
    }
