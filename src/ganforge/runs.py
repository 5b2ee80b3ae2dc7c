"""The one reader of what runs and sweeps leave in their folders, whether they ended, crashed or still go on."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

State = Literal["running", "ended", "failed", "stopped", "pruned"]
Better = Literal["lower", "higher", "neither"]

SILENT_SECONDS = 900.0  # a run on another machine that has written nothing for so long counts as gone
NOT_PLAYED = ("tags", "resume", "logger", "recipe")  # settings that make no difference to what is learnt
_LOWER = ("fid", "fid_low", "fid_high", "kid_mean", "mind", "modes_kl", "reverse_kl")  # of older runs
_NOT_IN_RUNS = ("wandb", "checkpoints", "samples", "generated", "tensorboard", "__pycache__")


@dataclass(frozen=True)
class Process:
    """Which process plays, or played, a run.

    Attributes:
        started: tells it from a later process with the same number; None where the system does not say.
    """

    host: str
    pid: int
    started: str | None

    @classmethod
    def own(cls) -> Process:
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()))

    def lives(self) -> bool | None:
        """None for a process of another machine."""
        if self.host != socket.gethostname():
            return None
        if Path("/proc/self/stat").exists():
            return self.started is not None and _started(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def _started(pid: int) -> str | None:
    """Clock ticks from the machine's start to the process's, and which start of the machine that was; Linux only."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z":
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, IndexError):
        return None
    return f"{boot[:8]}-{fields[19]}"


@dataclass(frozen=True)
class Curve:
    """A figure over time: as many values as thousands of images seen, which never fall."""

    kimg: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Grid:
    """A sample grid: the picture, and when it was made."""

    kimg: float
    path: Path


@dataclass(frozen=True)
class HealthEvent:
    """What the watch over a run's health said: a line of health.jsonl."""

    kimg: float
    check: str
    message: str
    advice: str = ""
    action: str = "warn"
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Trial:
    """A point of a search: what was tried, what came of it, and the folders of its runs, one a seed."""

    number: int
    state: str
    params: Mapping[str, Any]
    values: Sequence[float] | None
    folders: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True)
class Search:
    """trials.json of a sweep's folder."""

    path: Path
    study: str
    sampler: str
    metrics: Sequence[str]
    directions: Sequence[str]
    trials: Sequence[Trial]


@dataclass(frozen=True)
class RunFolder:
    """One run, read as it is asked for; what is missing or broken is empty, and `problems` names it."""

    path: Path
    problems: list[str] = field(default_factory=list, compare=False)

    @cached_property
    def sweep(self) -> Path | None:
        """The folder of the sweep whose job this run is."""
        parent = self.path.parent
        return parent if any((parent / name).exists() for name in ("trials.json", "multirun.yaml")) else None

    @cached_property
    def name(self) -> str:
        """EXPERIMENT/FOLDER as far as the folders say so; a sweep's job has the sweep's name in front of its own."""
        parts = self.path.resolve().parts
        return "/".join(parts[-3:] if self.sweep else parts[-2:])

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self._mapping(self._yaml("config.yaml"))

    @cached_property
    def asked(self) -> list[str]:
        """The command line's overrides."""
        found = self._yaml("overrides.yaml")
        return [str(word) for word in found] if isinstance(found, list) else []

    @property
    def asked_keys(self) -> list[str]:
        """The settings that the command line named."""
        return [word.partition("=")[0].lstrip("+~") for word in self.asked]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration flat, by `flat`; of a run that failed before it had one, what was asked."""
        if self.config:
            return flat(self.config)
        pairs = [word.lstrip("+").partition("=") for word in self.asked if "=" in word]
        return {key: _typed(text) for key, _, text in pairs}

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """Each start's time, command line, versions, commit and process, and how it ended where it said so."""
        found = self._mapping(self._json("run.json")).get("starts", [])
        return [start for start in found if isinstance(start, dict)] if isinstance(found, list) else []

    @cached_property
    def _scores(self) -> dict[str, Any]:
        return self._mapping(self._json("scores.json"))

    @cached_property
    def scores(self) -> dict[str, float]:
        """The figures of the last evaluation: of the end, where the run has come to it."""
        return {
            name: float(value)
            for name, value in self._mapping(self._scores.get("scores")).items()
            if isinstance(value, int | float)
        }

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """What made `scores`."""
        return self._mapping(self._scores.get("made_by"))

    @property
    def protocol(self) -> str | None:
        """Of `scores`; figures of two protocols do not compare."""
        found = self.stamp.get("protocol")
        return str(found) if found else None

    @cached_property
    def monitor(self) -> str:
        """The figure that the run itself takes for the one that counts; empty where it has none."""
        return str(self._scores.get("monitor") or ("fid" if "val/fid" in self.curves else ""))

    def better(self, figure: str) -> Better:
        """Which side of a figure is better."""
        name = figure.rpartition("/")[2]
        known = self._mapping(self._scores.get("better"))
        if not known:
            return "lower" if name in _LOWER else "neither"
        side: Better = known.get(name, "neither")
        return side

    def curve_protocol(self, figure: str) -> str | None:
        """The protocol of the curve `val/...` or `val_2/...`; None where the run does not say."""
        found = self._mapping(self._scores.get("curves")).get(figure.partition("/")[0])
        if found is None and not any(name.startswith("final/") for name in self.curves):
            return self.protocol  # of runs from before curves had theirs written down
        return str(found) if found else None

    def best(self, figure: str) -> tuple[float, float] | None:
        """The best value of a curve and its kimg; None without values or without a better side."""
        side, curve = self.better(figure), self.curves.get(figure)
        points = [(v, k) for k, v in zip(curve.kimg, curve.values, strict=True) if v == v] if curve else []
        if not points or side == "neither":
            return None
        return min(points) if side == "lower" else max(points, key=lambda point: (point[0], -point[1]))

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Every logged figure over kimg, from metrics.csv, or where there is none from W&B's offline files."""
        path = self.path / "metrics.csv"
        if path.exists():
            return _read_csv(path)
        return _read_wandb(self._wandb_files()) if self._wandb_files() else {}

    def _wandb_files(self) -> list[Path]:
        return sorted(self.path.glob("wandb/*run-*/run-*.wandb"))

    @property
    def kimg(self) -> float:
        """Thousands of images seen, as far as the run has said."""
        ends = [curve.kimg[-1] for curve in self.curves.values() if curve.kimg]
        return max([*ends, *(grids[-1].kimg for grids in self.grids.values())], default=0.0)

    @cached_property
    def grids(self) -> dict[str, list[Grid]]:
        """Sample grids through training: `samples`, and others that the game has to show."""
        found: dict[str, list[Grid]] = {}
        for path in sorted(self.path.glob("samples/*_kimg*.png")):
            match = re.fullmatch(r"([\d.]+)_kimg(?:_(.+))?", path.stem)
            if match:
                found.setdefault(match[2] or "samples", []).append(Grid(float(match[1]), path))
        return found

    @cached_property
    def checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoints/*.ckpt"))

    @cached_property
    def health(self) -> list[HealthEvent]:
        """Events in the order in which they were met."""
        try:
            lines = (self.path / "health.jsonl").read_text(errors="replace").splitlines()
        except OSError:
            return []
        names = HealthEvent.__dataclass_fields__
        events = []
        for line in lines:
            try:
                events.append(HealthEvent(**{k: v for k, v in json.loads(line).items() if k in names}))
            except (ValueError, TypeError, AttributeError):  # a line that a kill cut short
                continue
        return events

    @cached_property
    def ending(self) -> tuple[State, str]:
        """The run's state, and why: in its own words where it left any."""
        start = self.starts[-1] if self.starts else {}
        end = self._mapping(start.get("end"))
        failure = self._text("failure.txt")
        if failure or end.get("state") in ("failed", "stopped", "pruned"):
            said: State = end.get("state") or ("stopped" if failure.startswith("stopped by ") else "failed")
            return said, failure or str(end.get("reason", ""))
        if end.get("state") == "ended":
            return "ended", str(end.get("reason", ""))
        process = self._mapping(start.get("process"))
        lives = Process(**process).lives() if process else None
        if lives:
            return "running", f"process {process['pid']} on {process['host']}"
        stopped = self._mapping(self._scores.get("stopped"))
        if not process and (stopped or self.kimg >= self.config.get("total_kimg", math.inf)):
            return "ended", str(stopped.get("reason", f"{self.kimg:g} kimg"))
        silent = time.time() - self.modified
        if lives is None and silent < SILENT_SECONDS:
            return "running", f"on {process['host']}" if process else "by the time of what it wrote last"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.modified))
        return "failed", f"its process is gone without a word, as after a kill; last sign of life {when}"

    @property
    def state(self) -> State:
        return self.ending[0]

    @property
    def modified(self) -> float:
        """When something of it was last written, in seconds since 1970."""
        return max((stamp for _, stamp in self.signature()), default=0.0)

    def signature(self) -> tuple[tuple[str, float], ...]:
        """Changes when what can be read here has changed."""
        names = ("run.json", "metrics.csv", "scores.json", "failure.txt", "health.jsonl", "config.yaml")
        paths = [self.path / name for name in (*names, "samples", "checkpoints")]
        if not (self.path / "metrics.csv").exists():
            paths += self._wandb_files()
        found = []
        for path in paths:
            try:
                found.append((path.name, path.stat().st_mtime))
            except OSError:
                continue
        return tuple(found)

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.problems.append(f"{name}: {error.strerror}")
            return ""

    def _json(self, name: str) -> Any:
        text = self._text(name)
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            self.problems.append(f"{name} is broken: {error}")
            return None

    def _yaml(self, name: str) -> Any:
        try:
            return yaml.load(self._text(name), Loader=_YAML)
        except yaml.YAMLError as error:
            self.problems.append(f"{name} is broken: {' '.join(str(error).split())}")
            return None

    @staticmethod
    def _mapping(value: Any) -> dict[str, Any]:
        return value if isinstance(value, dict) else {}


_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def holds_a_run(folder: Path) -> bool:
    """Whether a folder is a run's, even of one that failed before it played."""
    if (folder / "config.yaml").is_file():
        return True
    return all((folder / name).is_file() for name in ("overrides.yaml", "failure.txt"))


def find_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs that the folders are, or hold at any depth, in natural order and each once.

    Raises:
        FileNotFoundError: a folder that does not exist.
        ValueError: there is no run in any of them.
    """
    found: dict[Path, RunFolder] = {}
    for folder in folders:
        if not folder.exists():
            raise FileNotFoundError(f"there is no folder {folder}")
        for path in _runs_below(folder):
            found.setdefault(path.resolve(), RunFolder(path))
    if not found:
        names = ", ".join(map(str, folders))
        raise ValueError(
            f"there is no run in {names}: a run's folder, such as outputs/digits/DATE_TIME, has config.yaml"
        )
    return list(found.values())


def _runs_below(folder: Path) -> Iterator[Path]:
    if holds_a_run(folder):
        yield folder
        return
    try:
        below = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return
    for path in sorted(below, key=_natural):
        if path.name not in _NOT_IN_RUNS and not path.name.startswith("."):
            yield from _runs_below(path)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """10 comes after 9."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def read_search(folder: Path) -> Search | None:
    """trials.json of a sweep's folder; None where there is none that can be read."""
    try:
        content = json.loads((folder / "trials.json").read_text())
        names = Trial.__dataclass_fields__
        trials = [Trial(**{k: v for k, v in trial.items() if k in names}) for trial in content["trials"]]
        return Search(
            path=folder,
            study=str(content.get("study", folder.name)),
            sampler=str(content.get("sampler", "")),
            metrics=list(content["metrics"]),
            directions=list(content["directions"]),
            trials=trials,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_csv(path: Path) -> dict[str, Curve]:
    """Columns of metrics.csv over kimg, without their gaps and without a row that a kill cut short."""
    with path.open(newline="", errors="replace") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = csv.reader(lines)
    header = next(rows, [])
    whole = [row for row in rows if len(row) == len(header)]
    if not whole or "images_seen" not in header:
        return {}
    columns: dict[str, Sequence[str]] = dict(zip(header, zip(*whole, strict=True), strict=True))
    clock = [_number(text) / 1000 for text in columns["images_seen"]]
    curves = {}
    for name, column in columns.items():
        points = [(k, _number(text)) for k, text in zip(clock, column, strict=True) if text and k == k]
        if name not in ("images_seen", "kimg") and points:
            kimg, values = zip(*points, strict=True)
            curves[name] = Curve(kimg, values)
    return curves


def _read_wandb(files: Sequence[Path]) -> dict[str, Curve]:
    """The history of W&B's offline files, of which each goes on where a resume left the one before it."""
    rows: dict[int, dict[str, float]] = {}
    for file in files:
        listed = subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        mine: dict[int, dict[str, float]] = {}
        for line in listed.stdout.splitlines():
            try:
                record = json.loads(line)
                item = record["history"]["item"] if record["type"] == "history" else None
            except (ValueError, KeyError, TypeError):
                continue
            if item and "kimg" in item:
                mine.setdefault(round(1000 * item["kimg"]), {}).update(
                    {
                        k: _number(v)
                        for k, v in item.items()
                        if "/" in k and isinstance(v, int | float | str) and not math.isnan(_number(v))
                    }
                )
        first = min(mine, default=0)
        rows = {k: row for k, row in rows.items() if k < first} | mine
    points: dict[str, list[tuple[float, float]]] = {}
    for images in sorted(rows):
        for name, value in rows[images].items():
            points.setdefault(name, []).append((images / 1000, value))
    return {name: Curve(*zip(*found, strict=True)) for name, found in points.items()}


def _typed(text: str) -> Any:
    """A value of the command line, as far as YAML can tell."""
    try:
        return yaml.load(text, Loader=_YAML)
    except yaml.YAMLError:
        return text


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values of a configuration's leaves; a part stands under its own key by a short name of it.

    `loss: {_target_: ganforge.losses.hinge.Hinge}` is `loss: hinge`.
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key == "_target_":
            found[prefix.removesuffix(".") or key] = part_name(str(value))
        elif isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif not str(key).startswith("_"):
            found[f"{prefix}{key}"] = value
    return found


def part_name(target: str) -> str:
    """Of a class: its module where that says it, else module and class."""
    module, _, name = target.rpartition(".")
    module = module.rpartition(".")[2]
    return module if name.lower() == module.replace("_", "") or not module else f"{module}.{name}"


def differing(runs: Sequence[RunFolder]) -> list[str]:
    """The settings in which any two runs differ, of those that left a whole configuration if there are any.

    What several settings say alike, as interpolated ones do, is named once, by the shortest key. What was asked on a
    command line comes first.
    """
    settings = [run.settings for run in runs if run.config] or [run.settings for run in runs]
    asked = {key for run in runs for key in run.asked_keys}
    keys = dict.fromkeys(key for config in settings for key in config if _is_played(key))
    chosen: dict[str, str] = {}
    for key in keys:
        values = [_plain(config.get(key)) for config in settings]
        if len(set(values)) > 1:
            column = "\n".join(values)
            chosen[column] = min(
                chosen.get(column, key), key, key=lambda k: (k not in asked, k.count("."), len(k))
            )
    return sorted(chosen.values(), key=lambda key: key not in asked)


def _is_played(key: str) -> bool:
    return key.partition(".")[0] not in NOT_PLAYED


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def grouped(runs: Sequence[RunFolder]) -> list[tuple[str, list[RunFolder]]]:
    """Runs whose configurations differ in their seeds only, under names that say in what the groups differ."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(
            _plain({k: v for k, v in run.settings.items() if k != "seed" and _is_played(k)}), []
        ).append(run)
    members = list(groups.values())
    return list(zip(_names([group[0] for group in members]), members, strict=True))


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """A name for each run of as few settings as tell them apart; a folder's name where none do."""
    keys: list[str] = []
    apart = 1
    for key in differing(runs):
        if key == "seed":
            continue
        values = {_plain([run.settings.get(k) for k in (*keys, key)]) for run in runs}
        if len(values) > apart:
            keys, apart = [*keys, key], len(values)
    names = [", ".join(f"{k}={shown(run.settings[k])}" for k in keys if k in run.settings) for run in runs]
    return [n if n and names.count(n) == 1 else run.name for n, run in zip(names, runs, strict=True)]


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    return str(value)
