"""TensorBoard: figures and sample grids as event files in the run's folder; steps are images seen."""

from __future__ import annotations

from collections.abc import Mapping
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

    def finish(self, exit_code: int) -> None:
        self._writer.close()
