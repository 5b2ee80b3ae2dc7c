"""Many rounds in one of Lightning's steps are the same rounds, and what happens beside them happens when it did."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from lightning import Callback, Trainer

from ganforge.datasets.samples import TensorSamples
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import mlp
from ganforge.schedules import Constant
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.ema import EMA
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player
from ganforge.training.run import Run

FACTS: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 3, "width": 16}


def module_of(game: Synthesis) -> AdversarialModule:
    player = Player(partial(torch.optim.Adam, lr=1e-3), Constant())
    return AdversarialModule(
        game, discriminator=player, generator=player, ema=EMA(game.generator_side, 1.0), batch_size=8
    )


class Notes(Periodic):
    """What the meter and the clock say each 24 images."""

    def __init__(self) -> None:
        super().__init__(every_kimg=0.024)
        self.seen: list[Any] = []

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        self.seen.append((module.round, module.images_seen, module.meter.means()))


class Counts(Callback):
    """Wants to be called after each round."""

    def __init__(self) -> None:
        self.rounds: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.rounds.append(pl_module.round)


def test_steps_of_many_rounds_play_the_same_game(play: Any) -> None:
    data = TensorSamples(
        "noise", torch.randint(256, (37, 1, 8, 8), dtype=torch.uint8), torch.randint(3, (37,))
    )
    start = Synthesis(mlp.Generator(latent_dim=8, **FACTS), mlp.Discriminator(**FACTS), NonSaturating())
    together, apart = module_of(copy.deepcopy(start)), module_of(start)
    notes, others, counts = Notes(), Notes(), Counts()
    play(together, data, 20, callbacks=[notes])
    play(apart, data, 20, callbacks=[others, counts])
    assert together.step_seconds > 0
    assert apart.step_seconds == 0
    assert counts.rounds == list(range(1, 21))
    assert [note[0] for note in notes.seen] == [3, 6, 9, 12, 15, 18, 20]
    assert notes.seen == others.seen
    for name, tensor in apart.state_dict().items():
        assert torch.equal(together.state_dict()[name], tensor), name
