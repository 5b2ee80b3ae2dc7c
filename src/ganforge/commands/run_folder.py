"""A run's folder: what was asked, what was resolved, and what it ran on."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml

from ganforge.commands.errors import UserError
from ganforge.runs import Process

log = logging.getLogger("ganforge")

PACKAGES = [
    "ganforge",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torch-fidelity",
    "torchmetrics",
    "wandb",
    "numpy",
    "scikit-learn",
]


def write_config(folder: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """config.yaml: the resolved configuration; overrides.yaml: what was asked on the command line."""
    _write_whole(folder / "overrides.yaml", yaml.safe_dump(list(overrides)))
    # Last: a folder that holds config.yaml is a run's, and whole.
    _write_whole(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def resume_overrides(words: Sequence[str]) -> list[str]:
    """The command line of `train resume=FOLDER ...`, with the run's own overrides in front and its folder fixed."""
    folders = [word.split("=", 1)[1] for word in words if word.startswith("resume=")]
    if not folders or not folders[-1] or folders[-1] == "null":
        return list(words)
    folder = Path(folders[-1]).expanduser()
    _, old_overrides = read_config(folder)
    flags = [i for i, word in enumerate(words) if word.startswith("-")]  # they come last
    end = flags[0] if flags else len(words)
    return [*old_overrides, *words[:end], f"hydra.run.dir={quoted(folder)}", *words[end:]]


def quoted(path: Path | str) -> str:
    """The path as a value that Hydra's grammar takes whatever it holds."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def make_folder(folder: Path, key: str) -> None:
    """Makes the folder that a setting names.

    Raises:
        UserError: it cannot be made, with the setting.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made: {error.strerror}; {key}=... chooses another place"
        ) from error


def record_start(folder: Path, command_line: Sequence[str], seed: int) -> None:
    """Adds this start, with versions, git commit, command line, seed and process, to run.json."""
    path = folder / "run.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    starts.append(
        {
            "time": _now(),
            "command": list(command_line),
            "seed": seed,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {name: _version(name) for name in PACKAGES},
            "git_commit": _git_commit(),
            "process": dataclasses.asdict(Process.own()),
        }
    )
    _write_whole(path, json.dumps({"starts": starts}, indent=2) + "\n")


def record_end(folder: Path, state: Literal["ended", "stopped", "failed"], reason: str) -> None:
    """Adds how the last start ended, and why, to run.json; failure.txt says it of a run that did not end well."""
    path = folder / "run.json"
    try:
        if state != "ended":
            (folder / "failure.txt").write_text(reason + "\n")
        if path.exists():
            record = json.loads(path.read_text())
            record["starts"][-1]["end"] = {"time": _now(), "state": state, "reason": reason}
            _write_whole(path, json.dumps(record, indent=2) + "\n")
    except (OSError, ValueError, LookupError) as error:  # the disk may be what failed
        log.error("%s; %s could not be written: %s", reason, path, error)


def record_refusal(folder: Path, overrides: Sequence[str], message: str) -> None:
    """A sweep's job that did not come to its start leaves word in its folder too."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write_whole(folder / "overrides.yaml", yaml.safe_dump(list(overrides)))
        (folder / "failure.txt").write_text(message + "\n")


def read_config(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What `write_config` wrote.

    Raises:
        UserError: the folder is not a run's.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        overrides = yaml.safe_load((folder / "overrides.yaml").read_text())
    except OSError as error:
        raise UserError(
            f"resume={folder} is not a run's folder, such as outputs/digits/DATE_TIME: {error.filename} cannot be read"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"resume={folder}: its config.yaml or overrides.yaml is broken: {error}") from error
    return config, overrides


def _write_whole(path: Path, text: str) -> None:
    """A resumed run rewrites these files: a full disk must not cost it the old ones."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the code that runs, with `+` when the checkout has changes; None outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> list[str]:
    return ["ganforge", *sys.argv[1:]]
