"""What the log hands to the loggers beside means: the distribution of what the discriminator makes of images."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ganforge.datasets.samples import TensorSamples
from ganforge.games.synthesis import Synthesis
from ganforge.losses.hinge import Hinge
from ganforge.networks import mlp
from ganforge.schedules import Constant
from ganforge.training.callbacks.log import Log
from ganforge.training.ema import EMA
from ganforge.training.loggers.logger import Logger
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player

BATCH = 8


class Kept(Logger):
    def __init__(self) -> None:
        self.means: dict[int, float] = {}
        self.histograms: dict[str, dict[int, Tensor]] = {}

    def metrics(self, values: Any, images_seen: int) -> None:
        self.means[images_seen] = values["train/discriminator/real_logits"]

    def histogram(self, name: str, values: Tensor, images_seen: int) -> None:
        self.histograms.setdefault(name, {})[images_seen] = values


def test_logits_are_logged_as_histograms_of_the_interval(play: Any) -> None:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 0, "width": 4}
    game = Synthesis(mlp.Generator(latent_dim=4, **facts), mlp.Discriminator(**facts), loss=Hinge())
    player = Player(partial(torch.optim.Adam, lr=1e-3), Constant())
    ema = EMA(game.generator_side, half_life_kimg=0.05, ramp_up=None)
    module = AdversarialModule(game, discriminator=player, generator=player, ema=ema, batch_size=BATCH)
    data = TensorSamples("noise", torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8))
    kept = Kept()
    play(
        module, data, 7, callbacks=[Log(every_kimg=3 * BATCH / 1000, progress=False)], loggers={"kept": kept}
    )
    assert list(kept.means) == [3 * BATCH, 6 * BATCH, 7 * BATCH]
    assert set(kept.histograms) == {"histogram/real_logits", "histogram/fake_logits"}
    for seen, rounds in zip(kept.means, (3, 3, 1), strict=True):
        assert kept.histograms["histogram/fake_logits"][seen].shape == (rounds * BATCH,)
        real = kept.histograms["histogram/real_logits"][seen]
        assert real.mean().item() == pytest.approx(kept.means[seen], abs=1e-5)
