"""The discriminator's overfitting: its figures against their formulas, and what watching must not change."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from ganforge.datasets.samples import TensorSamples
from ganforge.draws import Draws
from ganforge.games.synthesis import Synthesis
from ganforge.images import to_float
from ganforge.losses.hinge import Hinge
from ganforge.networks import dcgan, mlp
from ganforge.schedules import Constant
from ganforge.training.callbacks.overfitting import Overfitting
from ganforge.training.ema import EMA
from ganforge.training.loggers.logger import Logger
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player

CLASSES = 3
SEED = 5


class Kept(Logger):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        self.rows.append(dict(values))


def samples(n: int) -> TensorSamples:
    return TensorSamples(
        "noise",
        torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8),
        torch.randint(CLASSES, (n,)),
        num_classes=CLASSES,
    )


def module_of(networks: Any = dcgan, lr: float = 1e-3) -> AdversarialModule:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": CLASSES, "width": 4}
    game = Synthesis(networks.Generator(latent_dim=8, **facts), networks.Discriminator(**facts), loss=Hinge())
    player = Player(partial(torch.optim.Adam, lr=lr), Constant())
    ema = EMA(game.generator_side, half_life_kimg=0.05, ramp_up=None)
    return AdversarialModule(game, discriminator=player, generator=player, ema=ema, batch_size=8, seed=SEED)


def test_r_v_and_r_t_of_all_images_as_they_are(play: Any) -> None:
    train, held_out, kept, module = samples(300), samples(20), Kept(), module_of()
    watch = Overfitting(every_kimg=0, num_images=500)
    facts = {"held_out": held_out, "class_counts": [1] * CLASSES, "seed": SEED}
    play(module, train, 4, callbacks=[watch], loggers={"kept": kept}, **facts)
    (row,) = kept.rows
    game = copy.deepcopy(module.game).eval()

    def logits(data: TensorSamples) -> torch.Tensor:
        return game.discriminator_side(to_float(data.data), data.labels).double()

    with torch.no_grad():
        real, unseen = logits(train), logits(held_out)
        draws = Draws(SEED, "overfitting")
        first = game.sample(draws, train.labels[:250])
        fakes = torch.cat([first, game.sample(draws, train.labels[250:])])
        fake = game.discriminator_side(fakes, train.labels).double()
    assert row["overfitting/logits_train"] == pytest.approx(real.mean().item(), rel=1e-5)
    assert row["overfitting/logits_held_out"] == pytest.approx(unseen.mean().item(), rel=1e-5)
    assert row["overfitting/logits_generated"] == pytest.approx(fake.mean().item(), rel=1e-5)
    assert row["overfitting/r_t"] == pytest.approx(real.sign().mean().item(), abs=1e-6)
    apart = (real.mean() - fake.mean()).item()
    if apart > 0:
        expected = (real.mean() - unseen.mean()).item() / apart
        assert row["overfitting/r_v"] == pytest.approx(expected, rel=1e-4)
    else:
        assert "overfitting/r_v" not in row


def test_memory_of_the_training_images_shows(play: Any) -> None:
    """Trained on 8 images of noise long enough, the discriminator knows them: others are no better than fakes."""
    kept, module = Kept(), module_of(mlp, lr=5e-3)
    facts = {"held_out": samples(200), "class_counts": [1] * CLASSES, "seed": SEED}
    play(module, samples(8), 60, callbacks=[Overfitting(every_kimg=0)], loggers={"kept": kept}, **facts)
    assert kept.rows[-1]["overfitting/r_v"] > 0.5
    assert kept.rows[-1]["overfitting/r_t"] > 0.5


def test_watching_changes_nothing(play: Any) -> None:
    train, held_out, watched = samples(40), samples(20), module_of()
    alone = copy.deepcopy(watched)
    facts = {"class_counts": [1] * CLASSES, "seed": SEED}
    watch = Overfitting(every_kimg=0.008)
    play(watched, train, 5, callbacks=[watch], loggers={"kept": (kept := Kept())}, held_out=held_out, **facts)
    play(alone, train, 5, **facts)
    assert len(kept.rows) == 5
    assert all(math.isfinite(value) for row in kept.rows for value in row.values())
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions(play: Any, precision: str) -> None:
    facts = {"held_out": samples(20), "class_counts": [1] * CLASSES, "precision": precision}
    play(module_of(), samples(20), 2, callbacks=[Overfitting(0)], loggers={"kept": (kept := Kept())}, **facts)
    assert math.isfinite(kept.rows[-1]["overfitting/logits_held_out"])


def test_without_held_out_images_nothing_is_watched(play: Any) -> None:
    play(module_of(), samples(20), 2, callbacks=[Overfitting(0.008)], loggers={"kept": (kept := Kept())})
    assert kept.rows == []


def test_networks_that_batch_norm_holds_apart_are_in_evaluation_mode() -> None:
    module = module_of()
    assert any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.game.generator_side.modules())
    before = copy.deepcopy(module.game.generator_side.state_dict())
    module.game.eval().logits_of_generated(Draws(0, "x"), torch.zeros(4, dtype=torch.int64))
    for name, tensor in module.game.generator_side.state_dict().items():
        assert torch.equal(tensor, before[name]), name
