"""Logs the interval's means, and shows them: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ganforge.training.callbacks.periodic import Periodic, module_and_run
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run

# What the discriminator makes of images: its mean says little of where it stands between the players.
_JUDGEMENTS = ("real_logits", "fake_logits", "real_energy", "fake_energy")


class Log(Periodic):
    """Every term, accuracies, logits, gradient norms, learning rates, images/s and memory, as means over `every_kimg`.

    Logits, or energies, of the interval's last images are logged as `histogram/real_logits` and `histogram/fake_logits`
    too.

    Args:
        every_kimg: the interval.
        progress: whether to show anything on the screen.
        line_every_seconds: at most one line in this time where there is no terminal.
    """

    def __init__(
        self, every_kimg: float = 1.0, progress: bool = True, line_every_seconds: float = 10.0
    ) -> None:
        super().__init__(every_kimg)
        self.progress = progress
        self.line_every_seconds = line_every_seconds
        self._display: _Bar | _Lines | None = None
        self._last_time = 0.0
        self._last_paused = 0.0
        self._last_images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, run = module_and_run(pl_module)
        if self.progress and trainer.is_global_zero:
            terminal = Console(stderr=True).is_terminal
            self._display = (
                _Bar(run, module.images_seen) if terminal else _Lines(run, self.line_every_seconds)
            )
        self._last_time, self._last_images = time.perf_counter(), module.images_seen
        self._last_paused = run.paused_seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if isinstance(self._display, _Bar):
            self._display.advance(module_and_run(pl_module)[0].images_seen)

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        now = time.perf_counter()
        seconds = max(now - self._last_time - (run.paused_seconds - self._last_paused), 1e-9)
        values = {
            **module.meter.means(),
            **module.learning_rates(),
            "train/images_per_second": (module.images_seen - self._last_images) / seconds,
            **memory(module.device),
            **run.beside,
        }
        images, played = run.played
        run.played = images + module.images_seen - self._last_images, played + seconds
        self._last_time, self._last_images, self._last_paused = now, module.images_seen, run.paused_seconds
        run.beside = {}
        run.loggers.metrics(values, module.images_seen)
        for name, judgements in module.meter.recent().items():
            last = name.rsplit("/", 1)[-1]
            if last in _JUDGEMENTS:
                run.loggers.histogram(f"histogram/{last}", judgements, module.images_seen)
        if self._display is not None:
            self._display.show(module.images_seen, values)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None


def memory(device: torch.device) -> dict[str, float]:
    """Peak memory in GB: the process's, and the device's where it has its own."""
    values = {"train/memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if device.type == "cuda":
        values["train/device_memory_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
    return values


def _headline(values: dict[str, float], run: Run) -> str:
    """Both players' losses and the last score that counts, in a few words."""
    parts = []
    for side, letter in (("discriminator", "D"), ("generator", "G")):
        prefix = f"train/{side}/"
        if f"{prefix}adversarial" in values:
            parts.append(f"{letter} {values[f'{prefix}adversarial']:.3f}")
    for name, label in (("fid", f"FID ({run.evaluator.name})"), ("modes_covered", "modes")):
        if name in run.scores:
            parts.append(f"{label} {run.scores[name]:.3g}")
    return "  ".join(parts)


class _Bar:
    """A Rich progress bar in kimg."""

    refresh_seconds = 0.2

    def __init__(self, run: Run, images_seen: int) -> None:
        self._run = run
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.1f}/{task.total:g} kimg"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[headline]}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task: TaskID = self._progress.add_task(
            run.config.get("name", "training"),
            total=run.total_images / 1000,
            speed="",
            headline="",
        )
        self._progress.update(self._task, completed=images_seen / 1000)
        self._progress.start()
        self._refreshed = 0.0

    def advance(self, images_seen: int) -> None:
        now = time.perf_counter()
        if now - self._refreshed >= self.refresh_seconds or self._run.ends(images_seen):
            self._refreshed = now
            self._progress.update(self._task, completed=min(images_seen, self._run.total_images) / 1000)
            self._progress.refresh()

    def show(self, images_seen: int, values: dict[str, float]) -> None:
        speed = f"{values['train/images_per_second']:,.0f} img/s"
        self._progress.update(self._task, speed=speed, headline=_headline(values, self._run))

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """A line now and then, for files and pipes."""

    def __init__(self, run: Run, every_seconds: float) -> None:
        self._run = run
        self._every_seconds = every_seconds
        self._last = 0.0

    def show(self, images_seen: int, values: dict[str, float]) -> None:
        now = time.perf_counter()
        if now - self._last >= self._every_seconds or self._run.ends(images_seen):
            self._last = now
            print(
                f"{images_seen / 1000:.1f}/{self._run.total_images / 1000:g} kimg  "
                f"{values['train/images_per_second']:,.0f} img/s  {_headline(values, self._run)}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        return None
