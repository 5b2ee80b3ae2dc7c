"""Pictures of what the generator makes of the same latents, from the first round to the last."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from ganforge.draws import Draws
from ganforge.games.game import Game
from ganforge.games.sampling import Manner
from ganforge.images import grid, read_png, save_animation, save_png, scatter, to_float, to_uint8
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run

log = logging.getLogger("ganforge")


class Samples(Periodic):
    """A grid from fixed latents, one row a class, at the start, each `every_kimg` and at the end; then an animation.

    2-D samples are drawn as points over the centres of the real modes.

    Args:
        every_kimg: period of the grids.
        columns: pictures in a row.
        rows: rows where there are no classes, and the most rows where there are.
        points: how many samples of 2-D data.
        animation: file in the run's folder, `.webp` or `.gif`; None for none.
        truncation, truncation_psi: bounds of z and of styles, see `Manner`.
    """

    at_start = True

    def __init__(
        self,
        every_kimg: float = 10.0,
        columns: int = 10,
        rows: int = 10,
        points: int = 2000,
        animation: str | None = "samples.webp",
        truncation: float | None = None,
        truncation_psi: float | None = None,
    ) -> None:
        super().__init__(every_kimg)
        self.columns = columns
        self.rows = rows
        self.points = points
        self.animation = animation
        self.manner = Manner(truncation, truncation_psi)

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        if not trainer.is_global_zero:
            return
        picture, others = self._picture(module, run), self._others(module, run, trainer)
        folder = run.folder / "samples"
        try:
            folder.mkdir(exist_ok=True)
            save_png(folder / f"{module.kimg:010.3f}_kimg.png", picture)
            for name, other in others.items():
                save_png(folder / f"{module.kimg:010.3f}_kimg_{name}.png", other)
            if self.animation is not None and run.finishes(module.images_seen):
                self._animate(folder, run.folder / self.animation, module.kimg)
        except OSError as error:
            log.warning("the sample grid could not be written: %s", error)
        for name, other in {"samples": picture, **others}.items():
            run.loggers.picture(name, other, module.images_seen)

    @torch.no_grad()
    def _picture(self, module: AdversarialModule, run: Run) -> Tensor:
        classes = min(len(run.class_counts), self.rows)
        rows = classes or self.rows
        labels = (
            torch.arange(rows).repeat_interleave(self.columns)
            if classes
            else torch.zeros(rows * self.columns)
        )
        labels = labels.to(device=module.device, dtype=torch.int64)
        side = self.manner.side(module.game, module.ema.average, run.class_counts, len(labels))
        draws = Draws(run.seed, "samples", truncation=self.manner.truncation)
        samples = module.game.sample(draws, labels, side)
        if samples.ndim == 4:
            return grid(to_uint8(samples).cpu(), columns=self.columns)
        labels = torch.zeros(self.points, dtype=torch.int64, device=module.device)
        draws = Draws(run.seed, "samples", truncation=self.manner.truncation)
        points = module.game.sample(draws, labels, side).cpu()
        reference = points if run.real_points is None else run.real_points
        return scatter(points, extent=1.3 * reference.abs().max().item(), reference=run.real_points)

    @torch.no_grad()
    def _others(self, module: AdversarialModule, run: Run, trainer: Trainer) -> dict[str, Tensor]:
        """What else the game has to show, the data's first images among it where it asks for real ones."""
        if type(module.game).pictures is Game.pictures:
            return {}
        rounds: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = torch.arange(min(self.columns, len(rounds.data)))
        real = rounds.data.batch(rows).to(module.device)
        real = to_float(real) if real.dtype == torch.uint8 else real
        real = trainer.precision_plugin.convert_input(real)
        labels = rounds.labels[rows].to(module.device)
        shown = module.game.pictures(Draws(run.seed, "samples"), labels, module.ema.average, real)
        return {
            name: grid(to_uint8(images.flatten(0, 1)).cpu(), columns=images.shape[1])
            for name, images in shown.items()
            if images.ndim == 5
        }

    def _animate(self, folder: Path, target: Path, until_kimg: float) -> None:
        frames = sorted(folder.glob("*_kimg.png"))
        frames = [f for f in frames if float(re.sub("_kimg$", "", f.stem)) <= until_kimg]
        pause = max(40, min(500, 8000 // max(len(frames), 1)))
        save_animation(target, [read_png(frame) for frame in frames], milliseconds=pause)
