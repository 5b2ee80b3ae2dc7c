"""metrics.csv in the run's folder: a row a log line, a column a figure."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ganforge.training.loggers.logger import Logger, RunInfo


class CsvLogger(Logger):
    """Appends as it goes; a resumed run first drops the rows that lie after the checkpoint it starts from."""

    def __init__(self) -> None:
        self._path = Path()
        self._columns: list[str] = []

    def start(self, run: RunInfo) -> None:
        self._path = run.folder / "metrics.csv"
        self.rolled_back(run.images_seen)

    def rolled_back(self, images_seen: int) -> None:
        rows = self._rows() if self._path.exists() else []
        kept = [row for row in rows if _images_seen(row) <= images_seen]
        self._columns = ["images_seen", "kimg"]
        self._write([row for row in kept if images_seen > 0])

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        row = {"images_seen": str(images_seen), **{name: f"{value:.6g}" for name, value in values.items()}}
        if set(row) <= set(self._columns):
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._write([*self._rows(), row])

    def _rows(self) -> list[dict[str, str]]:
        with self._path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, str]]) -> None:
        self._columns = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row if name)]))
        temporary = self._path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._path)


def _images_seen(row: Mapping[str, str]) -> float:
    """The row's clock; a row that a kill cut short, at whatever place, counts as later than any."""
    try:
        return math.inf if None in row.values() else float(row["images_seen"])
    except (KeyError, ValueError):
        return math.inf
