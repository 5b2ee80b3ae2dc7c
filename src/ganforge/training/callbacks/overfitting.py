"""How far the discriminator overfits: its logits of its own images, of held-out and of generated ones."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from ganforge.draws import Draws, derive_seed
from ganforge.evaluation.evaluator import RealData
from ganforge.images import to_float
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run

_BATCH = 250


class Overfitting(Periodic):
    """Logs of a discriminator's logits D, each `every_kimg` and at the end, for runs with `held_out` images:

        overfitting/r_v = (E[D(train)] - E[D(held out)]) / (E[D(train)] - E[D(generated)])
        overfitting/r_t = E[sign(D(train))]

    (Karras et al. 2020, "Training GANs with Limited Data", arXiv 2006.06676, equation 1) and the three means as
    `overfitting/logits_train`, `_held_out` and `_generated`. r_v is 0 where held-out images look to it as those it
    learns from and 1 where they look like fakes; it is left out while generated images are rated above those it learns
    from. Of images as they are, without augmentation, with both players in evaluation mode.

    Args:
        every_kimg: period.
        num_images: how many of each, at most.
    """

    def __init__(self, every_kimg: float = 10.0, num_images: int = 1000) -> None:
        super().__init__(every_kimg)
        if num_images < 1:
            raise ValueError(f"num_images={num_images} must be at least 1")
        self.num_images = num_images
        self._sides: list[tuple[Tensor, Tensor]] = []

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return run.held_out is not None and super().due(module, run)

    def _some(self, data: RealData, run: Run) -> tuple[Tensor, Tensor]:
        """Images and labels: the same ones for a seed."""
        generator = torch.Generator().manual_seed(derive_seed(run.seed, "overfitting"))
        rows = torch.randperm(len(data), generator=generator)[: self.num_images].sort().values
        labels = data.labels[rows] if run.class_counts else torch.zeros(len(rows), dtype=torch.int64)
        return data.batch(rows), labels

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        if run.held_out is None or not trainer.is_global_zero:
            return
        if not self._sides:
            rounds: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._sides = [self._some(data, run) for data in (rounds.data, run.held_out)]
        module.game.eval()
        try:
            train, held_out = (_of_real(*side, trainer, module) for side in self._sides)
            generated = _of_generated(self._sides[0][1], Draws(run.seed, "overfitting"), module)
        finally:
            module.train()
        if train is None or held_out is None or generated is None:
            return
        r_t = train.sign().mean().item()
        learnt, unseen, fake = (logits.double().mean().item() for logits in (train, held_out, generated))
        figures = {"logits_train": learnt, "logits_held_out": unseen, "logits_generated": fake, "r_t": r_t}
        if learnt > fake:
            figures["r_v"] = (learnt - unseen) / (learnt - fake)
        figures = {f"overfitting/{name}": value for name, value in figures.items()}
        run.overfitting = module.images_seen, figures
        run.loggers.metrics(figures, module.images_seen)


def _of_real(images: Tensor, labels: Tensor, trainer: Trainer, module: AdversarialModule) -> Tensor | None:
    logits = []
    for part, own in zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True):
        shown = to_float(part) if part.dtype == torch.uint8 else part
        shown = trainer.precision_plugin.convert_input(shown.to(module.device))
        logits.append(module.game.logits_of_real(shown, own.to(module.device)))
    return _together(logits)


def _of_generated(labels: Tensor, draws: Draws, module: AdversarialModule) -> Tensor | None:
    parts = torch.split(labels.to(module.device), _BATCH)
    return _together([module.game.logits_of_generated(draws, part) for part in parts])


def _together(logits: list[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in logits if tensor is not None]
    return torch.cat(there) if there else None
