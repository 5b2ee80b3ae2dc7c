"""`ganforge report`: a page about runs and sweeps, as one HTML file or served while they train."""

from __future__ import annotations

import logging
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.run_folder import make_folder
from ganforge.report.data import report_data
from ganforge.report.page import PlotlyMissingError, page
from ganforge.report.pictures import Embedded
from ganforge.report.server import serve
from ganforge.runs import find_runs

log = logging.getLogger("ganforge")


def report(config: DictConfig) -> None:
    """Writes the page, or serves it until Ctrl-C.

    Raises:
        UserError: no run there, Plotly missing, or a file or port that cannot be used.
    """
    settings = plain(config)
    folders = [Path(folder).expanduser() for folder in settings["runs"]]
    title = settings["title"] or f"Runs of {', '.join(_name(folder) for folder in folders)}"
    try:
        with user_errors():
            if settings["watch"]:
                serve(
                    folders,
                    title,
                    settings["port"],
                    lambda url: log.info("%s shows %s; Ctrl-C ends", url, title),
                )
            else:
                _write(folders, title, Path(settings["out"]).expanduser())
    except PlotlyMissingError as error:
        raise UserError(str(error)) from error


def _write(folders: Sequence[Path], title: str, out: Path) -> None:
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file, such as out={out / 'report.html'}")
    make_folder(out.parent, "out")
    data = report_data(folders, Embedded(len(find_runs(folders))), link_from(out.parent))
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(page(data, title), encoding="utf-8")
    os.replace(temporary, out)
    states = _counts([run["state"] for run in data["runs"]])
    log.info("%s: %d runs (%s), %.1f MB", out, len(data["runs"]), states, out.stat().st_size / 1e6)


def link_from(folder: Path) -> Any:
    """Addresses of files as a page in `folder` names them."""

    def link(path: Path) -> str:
        relative = os.path.relpath(path.resolve(), folder.resolve())
        return "./" + urllib.parse.quote(Path(relative).as_posix())

    return link


def _name(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])


def _counts(states: Sequence[str]) -> str:
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
