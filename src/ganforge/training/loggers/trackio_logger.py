"""Trackio: figures, sample grids, histograms, evaluations and alerts in a file on this machine."""

from __future__ import annotations

import contextlib
import importlib
import io
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ganforge.training.loggers.logger import Logger, RunInfo


class TrackioLogger(Logger):
    """One Trackio run; its name is kept in the run's folder, so a resumed run continues it. Steps are images seen.

    Everything stays in Trackio's folder, `$TRACKIO_DIR`. Nothing is taken back there: where a resumed run goes on from
    before the last step that it had logged, it logs from that step on. How a run ended is told by its last alert.

    Args:
        project: of Trackio.
        group: None takes the sweep's folder for a job of one, and the experiment's name otherwise.
    """

    def __init__(self, project: str = "ganforge", group: str | None = None) -> None:
        self.project = project
        self.group = group
        self._trackio: Any = None
        self._run: Any = None
        self._logged = self._last = -1

    def start(self, run: RunInfo) -> None:
        try:
            trackio = importlib.import_module("trackio")
        except ImportError as error:
            raise ImportError("logger=trackio needs Trackio: pip install 'ganforge[trackio]'") from error
        self._trackio = trackio
        name_file = run.folder / "trackio_run.txt"
        if not name_file.exists():
            name_file.write_text(f"{run.name}-{run.folder.name}-{secrets.token_hex(4)}\n")
        config = {**run.config, "parts": dict(run.parts), "tags": list(run.tags), "data": dict(run.data())}
        self._run = _quietly(
            lambda: trackio.init(
                project=self.project,
                name=name_file.read_text().strip(),
                group=self.group or run.group,
                config=config,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        )
        last = trackio.SQLiteStorage.get_max_step_for_run(self.project, self._run.name)
        self._logged = -1 if last is None else last

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        self._log(lambda: dict(values), images_seen)

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        pixels = picture.permute(1, 2, 0).squeeze(-1).cpu().numpy()
        self._log(lambda: {name: self._trackio.Image(pixels)}, images_seen)

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        counted = np.histogram(values.float().cpu().numpy(), bins=64)
        self._log(lambda: {name: self._trackio.Histogram(np_histogram=counted)}, images_seen)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        self._log(lambda: {name: self._trackio.Table(columns=columns, data=data)}, images_seen)

    def alert(self, title: str, text: str, images_seen: int) -> None:
        _quietly(lambda: self._run.alert(title=title, text=text, step=images_seen))

    def rolled_back(self, images_seen: int) -> None:
        self._logged = max(self._logged, self._last)

    def finish(self, exit_code: int) -> None:
        _quietly(self._trackio.finish)

    def _log(self, values: Callable[[], dict[str, Any]], images_seen: int) -> None:
        if images_seen > self._logged:
            self._run.log(values(), step=images_seen)
            self._last = images_seen


def _quietly(call: Callable[[], Any]) -> Any:
    """Trackio prints what it does."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()
