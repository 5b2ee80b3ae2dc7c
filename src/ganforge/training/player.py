"""How one side learns, and the settings of its optimizer that change in time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ganforge.schedules import END_KIMG, Schedule, value_at

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass
class Player:
    """How one side learns.

    Attributes:
        optimizer: parameters -> optimizer. Keywords of a `functools.partial` may be schedules, or lists with schedules
            in them (Adam's betas), instead of numbers.
        schedule: kimg -> factor of the optimizer's learning rate.
        clip_norm: bound of the gradient's 2-norm over the side's parameters; None for no bound.
        factor: of the learning rate, beside the schedule's: below 1 in a run that went back.
    """

    optimizer: MakeOptimizer
    schedule: Schedule
    clip_norm: float | None = None
    factor: float = 1.0

    def start(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return optimizer_at(self.optimizer, 0.0)(parameters)

    def set_time(self, optimizer: Any, kimg: float) -> None:
        """Gives the optimizer the settings of that time."""
        settings = {name: _at(setting, kimg) for name, setting in _changing(self.optimizer).items()}
        rate = settings.pop("lr", optimizer.defaults["lr"]) * self.schedule(kimg) * self.factor
        for group in optimizer.param_groups:
            group.update(settings, lr=rate)


def optimizer_at(optimizer: MakeOptimizer, kimg: float) -> MakeOptimizer:
    """The optimizer with the settings of that time as plain numbers."""
    settings = {name: _at(setting, kimg) for name, setting in _changing(optimizer).items()}
    return functools.partial(optimizer, **settings) if settings else optimizer


def optimizer_ends(optimizer: MakeOptimizer) -> list[MakeOptimizer]:
    """The optimizer as it is at the start and, where its settings change, at the end."""
    times = (0.0, END_KIMG) if _changing(optimizer) else (0.0,)
    return [optimizer_at(optimizer, kimg) for kimg in times]


def _changing(optimizer: MakeOptimizer) -> dict[str, Any]:
    """The keywords that have a schedule in them."""
    keywords = optimizer.keywords if isinstance(optimizer, functools.partial) else {}
    return {name: setting for name, setting in keywords.items() if _changes(setting)}


def _changes(setting: Any) -> bool:
    return callable(setting) or (_is_list(setting) and any(map(callable, setting)))


def _at(setting: Any, kimg: float) -> Any:
    if _is_list(setting):
        return tuple(float(value_at(each, kimg)) for each in setting)
    return value_at(setting, kimg)


def _is_list(setting: Any) -> bool:
    return isinstance(setting, Sequence) and not isinstance(setting, str)
