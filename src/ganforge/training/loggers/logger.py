"""The contract of a logger, and the group that keeps a failing one from stopping the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

log = logging.getLogger("ganforge")


@dataclass(frozen=True)
class RunInfo:
    """What a logger learns of the run at its start.

    Attributes:
        folder: the run's folder.
        name: the experiment's name.
        tags: the user's.
        config: the resolved configuration, plain data.
        images_seen: 0, or where a resumed run goes on.
        group: what the run is shown with: the sweep's folder, or the experiment's name.
        parts: the option of each group that the configuration was composed of.
        data: says what the run learns from, `name` and `fingerprint` among it; the latter may take a while.
    """

    folder: Path
    name: str
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    images_seen: int = 0
    group: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    data: Callable[[], Mapping[str, Any]] = dict


class Logger:
    """Does nothing: override what the destination can show. Every call carries the clock."""

    def start(self, run: RunInfo) -> None:
        """Opens the destination."""

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        """Logs figures by name."""

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        """Logs a picture, uint8 (C, H, W)."""

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        """Logs the distribution of some values, floating-point (n,)."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        """Logs all rows of a table that grows, the oldest first."""

    def alert(self, title: str, text: str, images_seen: int) -> None:
        """Tells whoever is away from the run of something."""

    def checkpoint(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Tells of the best checkpoint so far, with its scores; the file may be replaced by a better one."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets figures that describe the run as a whole."""

    def rolled_back(self, images_seen: int) -> None:
        """The run goes on from an earlier checkpoint: what was logged after it no longer counts."""

    def config(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration, nested plain data: how scores are made is known after the start only."""

    def finish(self, exit_code: int) -> None:
        """Closes the destination."""


class Loggers:
    """Several loggers as one. The first failure of a logger is said once, and that logger is left out from then on."""

    def __init__(self, loggers: Mapping[str, Logger]) -> None:
        self._loggers = dict(loggers)

    def start(self, run: RunInfo) -> None:
        self._each(lambda logger: logger.start(run))

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        values = {"kimg": images_seen / 1000, **values}
        self._each(lambda logger: logger.metrics(values, images_seen))

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        self._each(lambda logger: logger.picture(name, picture, images_seen))

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        self._each(lambda logger: logger.histogram(name, values, images_seen))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        self._each(lambda logger: logger.table(name, rows, images_seen))

    def checkpoint(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._each(lambda logger: logger.checkpoint(path, facts))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._each(lambda logger: logger.summary(values))

    def alert(self, title: str, text: str, images_seen: int) -> None:
        self._each(lambda logger: logger.alert(title, text, images_seen))

    def rolled_back(self, images_seen: int) -> None:
        self._each(lambda logger: logger.rolled_back(images_seen))

    def config(self, values: Mapping[str, Any]) -> None:
        self._each(lambda logger: logger.config(values))

    def finish(self, exit_code: int) -> None:
        self._each(lambda logger: logger.finish(exit_code))

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self._loggers[name]
                log.warning(
                    "logger %s failed and is left out from now on: %s: %s", name, type(error).__name__, error
                )
