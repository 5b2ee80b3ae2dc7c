"""TensorBoard: figures, sample grids, histograms and evaluations as event files in the run's folder, by images seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ganforge.training.loggers.logger import Logger, RunInfo


class TensorBoardLogger(Logger):
    """Event files under `tensorboard/`; a resumed run hides what lies after the checkpoint it starts from."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._folder = Path()

    def start(self, run: RunInfo) -> None:
        self._folder = run.folder / "tensorboard"
        self._open(run.images_seen + 1 if run.images_seen else None)

    def rolled_back(self, images_seen: int) -> None:
        self._writer.close()
        self._open(images_seen + 1)

    def _open(self, purge: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self._folder, purge_step=purge)

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, images_seen)

    def picture(self, name: str, picture: Tensor, images_seen: int) -> None:
        self._writer.add_image(name, picture, images_seen)

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        self._writer.add_histogram(name, values, images_seen)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], images_seen: int) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [columns, ["---"] * len(columns), *([_cell(row.get(key)) for key in columns] for row in rows)]
        self._writer.add_text(name, "\n".join("| " + " | ".join(line) + " |" for line in lines), images_seen)

    def finish(self, exit_code: int) -> None:
        self._writer.close()


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
