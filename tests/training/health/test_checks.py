"""Each check on made-up readings: healthy ones, an episode, and its end; found by listing, so a new one is tested."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ganforge.training import health
from ganforge.training.health.balance import DiscriminatorTooStrong, SureOfReal
from ganforge.training.health.check import Check, Signals
from ganforge.training.health.diversity import ModeCollapse
from ganforge.training.health.nonfinite import NonFinite
from ganforge.training.health.scores import ClassesIgnored, CoverageFalls, TurnedBack
from ganforge.training.health.steps import SpectralNorm

CONF = Path(__file__).parents[3] / "conf" / "callbacks" / "default.yaml"
CHECKS: dict[str, dict[str, Any]] = yaml.safe_load(CONF.read_text())["health"]["checks"]

REAL, FAKE = "train/discriminator/accuracy_real", "train/discriminator/accuracy_fake"
NORMS = ("train/discriminator/gradient_norm", "train/generator/gradient_norm")
MOVES = ("health/discriminator/movement", "health/generator/movement")
GROWTH = {
    f"health/{side}/{what}": 1.0
    for side in ("discriminator", "generator")
    for what in ("spectral_growth", "spectral_norm")
}

# What a healthy run shows, and what makes each check speak.
WELL: dict[str, float] = {
    **dict.fromkeys((REAL, FAKE), 0.8),
    **dict.fromkeys(NORMS, 10.0),
    **dict.fromkeys(MOVES, 1e-3),
    **GROWTH,
    "health/diversity": 0.9,
    "health/duplicates": 0.0,
    "health/waiting": 0.1,
    "health/images_per_second": 1000.0,
    "health/longest_wait_seconds": 0.1,
    "health/lowest_pixel": -1.0,
    "health/highest_pixel": 1.0,
    "overfitting/r_v": 0.2,
    "scores/fid": 10.0,
    "scores/coverage": 0.8,
    "scores/memorisation": 0.5,
    "scores/class_consistency": 0.9,
    "num_classes": 10.0,
    "kimg": 1.0,
}
ILL: dict[str, dict[str, float]] = {
    "gradient_explosion": {NORMS[1]: 1e4},
    "gradient_vanishing": {NORMS[1]: 1e-4},
    "steps_too_large": {MOVES[0]: 0.2},
    "not_learning": {MOVES[1]: 0.0},
    "spectral_norm": {"health/generator/spectral_growth": 50.0, "health/generator/spectral_norm": 50.0},
    "discriminator_too_strong": {REAL: 1.0, FAKE: 1.0},
    "discriminator_too_weak": {REAL: 0.6, FAKE: 0.4},
    "overfitting": {"overfitting/r_v": 1.1},
    "sure_of_real": {REAL: 1.0},
    "mode_collapse": {"health/diversity": 0.05},
    "duplicates": {"health/duplicates": 0.9},
    "turned_back": {"scores/fid": 20.0},
    "coverage": {"scores/coverage": 0.2},
    "memorisation": {"scores/memorisation": 0.9},
    "classes_ignored": {"scores/class_consistency": 0.1},
    "slow_loader": {"health/waiting": 0.9},
    "dead_loader": {"health/longest_wait_seconds": 100.0},
    "throughput": {"health/images_per_second": 100.0},
    "pixels_outside": {"health/lowest_pixel": 0.0, "health/highest_pixel": 255.0},
    "pixels_narrow": {"health/lowest_pixel": -1.0, "health/highest_pixel": -0.9},
}
MEASURING = [name for name in CHECKS if name != "nonfinite"]


def made(name: str, **settings: Any) -> Check:
    arguments = {**CHECKS[name], **settings}
    module, _, last = arguments.pop("_target_").rpartition(".")
    arguments = {key: float(v) if key == "threshold" else v for key, v in arguments.items()}
    check: Check = getattr(importlib.import_module(module), last)(**arguments)
    return check


def said(check: Check, readings: Iterable[Signals]) -> list[int]:
    """At which of the readings the check spoke."""
    return [index for index, signals in enumerate(readings) if check.look(signals) is not None]


def test_every_check_is_in_the_configuration_and_here() -> None:
    found = set()
    for module in pkgutil.iter_modules(health.__path__, f"{health.__name__}."):
        for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(each, Check) and each is not Check:
                found.add(f"{each.__module__}.{each.__qualname__}")
    assert {check["_target_"] for check in CHECKS.values()} == found
    assert set(ILL) == set(MEASURING)


@pytest.mark.parametrize("name", CHECKS)
def test_the_configuration_holds_the_defaults(name: str) -> None:
    arguments = dict(CHECKS[name])
    module, _, last = arguments.pop("_target_").rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), last)).parameters
    for key, value in arguments.items():
        assert (
            float(value) == parameters[key].default
            if key == "threshold"
            else value == parameters[key].default
        )


@pytest.mark.parametrize("name", MEASURING)
def test_a_healthy_run_hears_nothing(name: str) -> None:
    assert said(made(name), [WELL] * 100) == []


@pytest.mark.parametrize("name", MEASURING)
def test_an_episode_is_said_once_and_a_second_one_again(name: str) -> None:
    check = made(name)
    patience = check.patience
    ill = {**WELL, **ILL[name]}
    before, after = [WELL] * 30, [WELL] * (2 * patience + 30)
    readings = [*before, *[ill] * (patience + 1), *after, *[ill] * patience]
    first = len(before) + patience - 1
    assert said(check, readings) == [first, len(readings) - 1]


@pytest.mark.parametrize("name", MEASURING)
def test_fewer_bad_readings_than_patience_say_nothing(name: str) -> None:
    check = made(name)
    if check.patience == 1:
        check = made(name, patience=2)
    assert said(check, [*[WELL] * 30, *[{**WELL, **ILL[name]}] * (check.patience - 1), *[WELL] * 5]) == []


@pytest.mark.parametrize("name", MEASURING)
def test_what_it_says_is_a_sentence_with_the_number_and_what_to_try(name: str) -> None:
    check = made(name)
    ill = {**WELL, **ILL[name]}
    (finding,) = filter(None, [check.look(signals) for signals in [*[WELL] * 30, *[ill] * check.patience]])
    assert len(finding.message) < 160
    assert finding.message[-1] not in ".!"
    assert "\n" not in finding.message + check.advice
    assert any(character.isdigit() for character in finding.message) or name == "not_learning"
    assert 10 < len(check.advice) < 160
    beyond = (
        finding.value > finding.threshold if check.worse == "higher" else finding.value < finding.threshold
    )
    assert beyond


@pytest.mark.parametrize("name", MEASURING)
def test_readings_without_its_signals_do_not_count(name: str) -> None:
    check, ill = made(name), {**WELL, **ILL[name]}
    readings = [*[WELL] * 30, *[signals for _ in range(check.patience) for signals in ({"kimg": 1.0}, ill)]]
    assert said(check, readings) == [len(readings) - 1]
    assert said(made(name), [{}] * 50) == []


@pytest.mark.parametrize("name", MEASURING)
def test_stored_and_loaded_at_any_reading_it_says_the_same(name: str) -> None:
    ill = {**WELL, **ILL[name]}
    readings = [*[WELL] * 12, *[ill] * 8, *[WELL] * 20, *[ill] * 8]
    expected = said(made(name), readings)
    for cut in range(len(readings)):
        first, second = made(name), made(name)
        spoken = said(first, readings[:cut])
        second.load_state(json.loads(json.dumps(first.state())))
        said(first, readings[cut:])  # shares nothing with what was stored
        assert spoken + [cut + index for index in said(second, readings[cut:])] == expected


def test_an_episode_does_not_end_in_the_margin() -> None:
    check = DiscriminatorTooStrong(threshold=0.9, patience=2, grace=0)

    def told(share: float) -> Signals:
        return {REAL: share, FAKE: share}

    flicker = [told(0.91), told(0.89)] * 10
    assert said(check, [told(0.91)] * 2) == [1]
    assert said(check, flicker) == []
    assert said(check, [told(0.5)] * 2 + [told(0.91)] * 2) == [3]


def test_a_start_that_looks_ill_has_its_grace() -> None:
    sure: Signals = {REAL: 1.0}
    assert said(SureOfReal(patience=3, grace=10), [sure] * 30) == [12]
    assert said(SureOfReal(patience=3, grace=10), [sure] * 4 + [{REAL: 0.7}] + [sure] * 3) == [7], (
        "it was well"
    )


def test_collapse_is_a_fall_or_next_to_nothing() -> None:
    def apart(values: Iterable[float]) -> list[Signals]:
        return [{"health/diversity": value} for value in values]

    growing = [0.11 + 0.01 * index for index in range(60)]
    assert said(ModeCollapse(), apart(growing)) == []
    assert said(ModeCollapse(grace=20), apart([0.02] * 40)) == [22]
    assert said(ModeCollapse(), apart([0.8] * 10 + [0.15] * 5)) == [12]


def test_singular_values_may_grow_slowly() -> None:
    def grown(values: Iterable[float]) -> list[Signals]:
        return [
            {"health/generator/spectral_growth": value, "health/generator/spectral_norm": value}
            for value in values
        ]

    assert said(SpectralNorm(), grown(1.3**index for index in range(60))) == []
    assert said(SpectralNorm(), grown([18, 20, 25])) == [1], "a leap at the start"


def test_scores_are_held_against_their_best() -> None:
    def scored(name: str, values: Iterable[float]) -> list[Signals]:
        return [{f"scores/{name}": value, "num_classes": 10.0} for value in values]

    assert said(TurnedBack(), scored("fid", [100, 50, 80, 40, 45, 59, 61, 62])) == [7]
    assert said(TurnedBack(), scored("fid", [0.0, 5, 5])) == [], "no multiple of nothing"
    larger = [
        {**each, "health/size": size}
        for each, size in zip(scored("fid", [9, 60, 60]), [0.0, 0.5, 1.0], strict=True)
    ]
    assert said(TurnedBack(), [*larger, *larger[2:], *larger[2:]]) == [], "images have grown since"
    small = [{"scores/fid": value, "health/size": 0.0} for value in (9, 60, 60)]
    assert said(TurnedBack(), small) == [2]
    assert said(CoverageFalls(), scored("coverage", [0.01, 0.1, 0.001, 0.001])) == [], "it never was any good"
    assert said(CoverageFalls(figure="recall"), scored("recall", [0.9, 0.4, 0.4])) == [2]
    assert said(ClassesIgnored(grace=0), scored("class_consistency", [0.12, 0.1, 0.09, 0.1])) == [2]
    assert said(ClassesIgnored(grace=0), [{"scores/class_consistency": 0.1, "num_classes": 0.0}] * 9) == []


def test_nan_is_for_another_check() -> None:
    assert said(ModeCollapse(), [{"health/diversity": math.nan}] * 50) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: made("mode_collapse", action="panic"), "action=panic"),
        (lambda: made("mode_collapse", patience=0), "patience=0"),
        (lambda: made("mode_collapse", grace=-1), "grace=-1"),
        (lambda: made("mode_collapse", threshold=math.inf), "threshold=inf"),
        (lambda: made("slow_loader", action="rollback"), "warn or stop"),
        (lambda: made("dead_loader", action="rollback"), "warn or stop"),
        (lambda: NonFinite(action="warn"), "stop or rollback"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Check], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
