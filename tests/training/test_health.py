"""The callback that watches a run's health: what it measures, where it says it, and that it changes nothing."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ganforge.datasets.samples import TensorSamples
from ganforge.games.synthesis import Synthesis
from ganforge.losses.hinge import Hinge
from ganforge.losses.wasserstein import Wasserstein
from ganforge.networks import dcgan, mlp
from ganforge.schedules import Constant
from ganforge.training.callbacks.health import Health
from ganforge.training.callbacks.log import Log
from ganforge.training.callbacks.overfitting import Overfitting
from ganforge.training.ema import EMA
from ganforge.training.health.check import Check, Signals
from ganforge.training.health.diversity import Duplicates, ModeCollapse
from ganforge.training.health.nonfinite import NonFinite
from ganforge.training.health.pixels import PixelsNarrow, PixelsOutside
from ganforge.training.health.speed import DeadLoader, SlowLoader
from ganforge.training.health.steps import NotLearning, StepsTooLarge
from ganforge.training.loggers.logger import Logger
from ganforge.training.meter import Meter, NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player
from ganforge.training.run import Run

BATCH = 8
EACH = BATCH / 1000  # a reading a round
CLASSES = 3


class Kept(Logger):
    """Everything that it is handed."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.alerts: list[tuple[str, str, int]] = []
        self.facts: dict[str, Any] = {}

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        self.rows.append(dict(values))

    def alert(self, title: str, text: str, images_seen: int) -> None:
        self.alerts.append((title, text, images_seen))

    def summary(self, values: Mapping[str, Any]) -> None:
        self.facts |= values


class Seen(Check):
    """Says nothing, and keeps every reading."""

    advice = "none"

    def __init__(self) -> None:
        super().__init__(0.0)
        self.readings: list[dict[str, float]] = []

    def measure(self, signals: Signals) -> None:
        self.readings.append(dict(signals))

    def say(self, value: float, signals: Signals) -> str:
        raise AssertionError("nothing to say")


def samples(n: int = 60, images: Tensor | None = None) -> TensorSamples:
    noise = torch.Generator().manual_seed(1)
    pixels = (
        torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=noise) if images is None else images
    )
    return TensorSamples("noise", pixels, torch.arange(len(pixels)) % CLASSES, num_classes=CLASSES)


def module_of(
    networks: Any = mlp, lr: float = 1e-3, loss: Any = None, generator: Any = None
) -> AdversarialModule:
    torch.manual_seed(0)
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": CLASSES, "width": 4}
    made = (generator or networks.Generator)(latent_dim=8, **facts)
    game = Synthesis(made, networks.Discriminator(**facts), loss=loss or Hinge())
    player = Player(partial(torch.optim.Adam, lr=lr), Constant())
    ema = EMA(game.generator_side, half_life_kimg=0.0, ramp_up=None)
    return AdversarialModule(game, discriminator=player, generator=player, ema=ema, batch_size=BATCH, seed=5)


def watched(
    play: Any, module: AdversarialModule, rounds: int, data: Any = None, **checks: Check
) -> tuple[Run, Kept]:
    kept = Kept()
    health = Health(checks, every_kimg=EACH, num_images=12)
    counts = {"class_counts": [20] * CLASSES}
    callbacks = [health, Log(EACH, progress=False)]
    return play(
        module, data or samples(), rounds, callbacks=callbacks, loggers={"kept": kept}, **counts
    ), kept


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "health.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("networks", [mlp, dcgan])
def test_watching_changes_nothing(play: Any, networks: Any) -> None:
    module = module_of(networks)
    alone = copy.deepcopy(module)
    watched(play, module, 10, seen=Seen())
    play(alone, samples(), 10)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name]), name


def test_a_reading_holds_what_the_run_does(play: Any) -> None:
    module, seen = module_of(), Seen()
    watched(play, module, 9, seen=seen)
    assert len(seen.readings) == 9
    for index, signals in enumerate(seen.readings):
        assert signals["kimg"] == pytest.approx((index + 1) * EACH)
        assert signals["rollbacks"] == 0
        assert ("train/generator/gradient_norm" in signals) == (index in (0, 8)), "measured each eighth round"
        assert 0 <= signals["train/discriminator/accuracy_real"] <= 1
        assert 0 < signals["health/generator/movement"] < 1
        assert signals["health/discriminator/spectral_growth"] == pytest.approx(1, rel=0.2)
        assert 0 < signals["health/diversity"] < 2
        assert signals["health/lowest_pixel"] == -1
        assert signals["health/highest_pixel"] == 1


def test_what_is_measured_is_logged_with_the_next_line(play: Any) -> None:
    _, kept = watched(play, module_of(), 3, seen=Seen())
    assert len(kept.rows) == 3
    for row in kept.rows:
        assert {"health/diversity", "health/duplicates", "health/generator/movement"} <= row.keys()
        assert {"health/discriminator/spectral_norm", "train/images_per_second"} <= row.keys()
    assert kept.facts == {"health/events": 0}


def test_accuracies_of_losses_without_a_verdict_are_left_out(play: Any) -> None:
    seen = Seen()
    watched(play, module_of(loss=Wasserstein()), 2, seen=seen)
    assert "train/discriminator/real_logits" in seen.readings[-1]
    assert not any("accuracy" in name for name in seen.readings[-1])


class Collapsed(mlp.Generator):
    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(z), labels)


def test_a_collapsed_generator_is_named_everywhere(play: Any) -> None:
    checks = {"collapse": ModeCollapse(grace=0, patience=2), "doubles": Duplicates(grace=0, patience=2)}
    run, kept = watched(play, module_of(generator=Collapsed), 6, **checks)
    assert [event["check"] for event in lines(run)] == ["collapse", "doubles"]
    event = lines(run)[0]
    assert event.keys() == {
        *("images_seen", "kimg", "check", "message", "advice", "action", "value", "threshold"),
    }
    assert event["images_seen"] == 2 * BATCH
    assert event["kimg"] == pytest.approx(2 * EACH)
    assert (event["action"], event["value"]) == ("warn", pytest.approx(0, abs=1e-3))
    assert event["message"].startswith("the generator collapses")
    assert [(title, at) for title, _, at in kept.alerts] == [("collapse", 16), ("doubles", 16)]
    assert all(event["advice"] in kept.alerts[0][1] for event in lines(run))
    assert kept.facts["health/events"] == 2
    assert kept.facts["health/collapse"] == event["message"]
    assert run.unhealthy is None


def test_a_frozen_player_and_one_that_leaps_are_named(play: Any) -> None:
    run, _ = watched(play, module_of(lr=0.0), 4, still=NotLearning())
    assert lines(run)[0]["message"].endswith(
        "the weights of the discriminator and of the generator do not change"
    )
    run, _ = watched(play, module_of(lr=10.0), 4, leaps=StepsTooLarge())
    assert "change by" in lines(run)[0]["message"]


def test_the_log_says_when_what_and_what_to_try(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    watched(play, module_of(lr=0.0), 4, still=NotLearning())
    (line,) = [record.getMessage() for record in caplog.records if "no learning" in record.getMessage()]
    assert line.startswith("0.016 kimg: no learning")
    assert "Try: look at its learning rate" in line


@pytest.mark.parametrize(
    ("images", "name", "words"),
    [
        (
            torch.randint(17, (60, 1, 8, 8), dtype=torch.uint8),
            "narrow",
            "use little of [-1, 1]: they go from -1 to -0.87",
        ),
        (torch.full((60, 1, 8, 8), 7, dtype=torch.uint8), "narrow", "are constant"),
        (torch.rand(60, 1, 8, 8), "narrow", "use little"),
        (255 * torch.rand(60, 1, 8, 8), "outside", "leave [-1, 1]: they go from 0"),
    ],
)
def test_real_images_in_the_wrong_range(play: Any, images: Tensor, name: str, words: str) -> None:
    checks = {"narrow": PixelsNarrow(), "outside": PixelsOutside()}
    run, _ = watched(play, module_of(), 3, samples(images=images), **checks)
    (event,) = [event for event in lines(run) if event["check"] == name]
    assert words in event["message"]
    assert event["images_seen"] == BATCH, "at once"


class Slow(TensorSamples):
    """Takes its time for each batch, and for one of them more."""

    seconds, once, at = 0.0, 0.0, 10

    def batch(self, indices: Tensor) -> Tensor:
        self.at -= 1
        time.sleep(self.once if self.at == 0 else self.seconds)
        return super().batch(indices)


def slow(**times: float) -> Slow:
    data = samples()
    made = Slow(data.name, data.data, data.labels, num_classes=CLASSES)
    vars(made).update(times)
    return made


def test_a_slow_loader_is_named(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganforge.training.callbacks.health._SECONDS", 0.02)
    run, kept = watched(play, module_of(), 8, slow(seconds=0.1), slow=SlowLoader(threshold=0.3))
    assert lines(run)[0]["message"].startswith("the loader is slow")
    assert 0.3 < kept.rows[-1]["health/waiting"] <= 1


def test_a_loader_that_stands_still_is_named_while_it_does(play: Any) -> None:
    told: list[float] = []
    data = slow(once=1.5, at=5)

    class Listening(Logger):
        def alert(self, title: str, text: str, images_seen: int) -> None:
            told.append(time.perf_counter())

    health = Health({"dead": DeadLoader(threshold=0.2)}, every_kimg=EACH)
    run = play(
        module_of(), data, 8, callbacks=[health], loggers={"listening": Listening()}, class_counts=[20] * 3
    )
    ended = time.perf_counter()
    (event,) = lines(run)
    assert event["check"] == "dead"
    assert event["value"] > 0.2
    assert len(told) == 1, "and not again once the batch is there"
    assert ended - told[0] > 0.5, "before it was"


def test_a_dead_loader_may_stop_the_run_when_it_comes_back(play: Any) -> None:
    health = Health({"dead": DeadLoader(threshold=0.2, action="stop")}, every_kimg=EACH)
    module = module_of()
    run = play(module, slow(once=0.8, at=5), 20, callbacks=[health], class_counts=[20] * CLASSES)
    assert run.unhealthy is not None
    assert module.round < 10


def test_figures_of_overfitting_reach_the_checks(play: Any) -> None:
    seen = Seen()
    callbacks = [Overfitting(every_kimg=2 * EACH), Health({"seen": seen}, every_kimg=EACH)]
    play(module_of(), samples(), 4, callbacks=callbacks, held_out=samples(20), class_counts=[20] * CLASSES)
    assert ["overfitting/r_t" in signals for signals in seen.readings] == [False, True, False, True]


def test_nan_is_in_the_events_with_the_term_that_went_first(play: Any, tmp_path: Path) -> None:
    class Diverging(Hinge):
        calls = 0

        def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
            Diverging.calls += 1
            return super().generator_loss(real_logits, fake_logits) * (
                float("nan") if Diverging.calls > 3 else 1.0
            )

    health = Health({"nonfinite": NonFinite()}, every_kimg=7 * EACH, num_images=12)
    with pytest.raises(NonFiniteLossError, match="train/generator/adversarial became nan"):
        play(module_of(loss=Diverging()), samples(), 20, callbacks=[health], class_counts=[20] * CLASSES)
    (event,) = [json.loads(line) for line in (tmp_path / "health.jsonl").read_text().splitlines()]
    assert event["check"] == "nonfinite"
    assert event["action"] == "stop"
    assert "train/generator/adversarial became nan" in event["message"]


@pytest.mark.parametrize("reader", [Meter.means, lambda meter: meter.interval_of_the_test.means()])
def test_the_meter_names_what_went_bad_first_and_not_what_comes_first(reader: Any) -> None:
    """Also past a fold, and for whoever asks."""
    for first in (5, 300, 700):
        meter: Any = Meter()
        meter.interval_of_the_test = meter.interval()
        for at in range(1000):
            late = torch.tensor(float("nan") if at >= first + 40 else 1.0)
            soon = torch.full((4,), float("inf") if at >= first else 1.0)
            meter.add("", {"a": late})
            if at % 4 == 0:
                meter.add("", {"z": soon})
        with pytest.raises(NonFiniteLossError, match="z became"):
            reader(meter)


def test_two_readers_have_intervals_of_their_own() -> None:
    meter = Meter()
    other = meter.interval()
    meter.add("", {"x": torch.tensor(1.0)})
    assert meter.means() == {"x": 1.0}
    meter.add("", {"x": torch.tensor(3.0)})
    assert other.means() == {"x": 2.0}
    assert meter.means() == {"x": 3.0}
    assert other.means() == {}


def test_weights_that_are_not_finite_are_named() -> None:
    module = module_of()
    with torch.no_grad():
        [*module.game.discriminator_side.parameters()][-1].fill_(float("nan"))
    last = [name for name, _ in module.game.discriminator_side.named_parameters()][-1]
    with pytest.raises(
        NonFiniteLossError, match=f"the discriminator's weights became NaN or infinite, {last} first of 1"
    ):
        module.check_finite()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_images": 1}, "num_images=1"),
        ({"at_most_rollbacks": -1}, "at_most_rollbacks=-1"),
        ({"learning_rate_factor": 0.0}, "learning_rate_factor=0"),
        ({"learning_rate_factor": 1.0}, "would do the same again"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Health({"nonfinite": NonFinite("rollback")}, **settings)
    Health({"nonfinite": None}, learning_rate_factor=1.0)
