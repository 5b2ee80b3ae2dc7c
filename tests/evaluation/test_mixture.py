"""Modes, quality and balance of hand-made samples."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from ganforge.evaluation.mixture import MixtureEvaluator, mode_figures


@pytest.fixture
def ring():
    angles = torch.arange(8) * (2 * math.pi / 8)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)
    return SimpleNamespace(
        name="ring",
        shape=(2,),
        centres=centres,
        std=0.01,
        num_classes=8,
        fingerprint=lambda: "ring-8",
    )


def prepared(data):
    evaluator = MixtureEvaluator()
    evaluator.prepare(data, "cpu")
    return evaluator


def batches(samples, labels=None):
    labels = torch.zeros(len(samples), dtype=torch.int64) if labels is None else labels
    return zip(samples.split(300), labels.split(300), strict=True)


def test_all_modes_in_balance(ring):
    labels = torch.arange(8).repeat(250)
    samples = ring.centres[labels] + 0.01 * torch.randn(2000, 2)
    figures = prepared(ring).evaluate(batches(samples, labels), conditional=True)
    assert figures["modes_covered"] == 8
    # P(|x| <= 3 std) of a 2-D normal is 1 - exp(-9/2) = 0.989
    assert figures["high_quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.012)
    assert figures["reverse_kl"] == pytest.approx(0, abs=1e-12)
    assert figures["class_consistency"] == 1


def test_one_mode(ring):
    figures = prepared(ring).evaluate(batches(ring.centres[[5]].repeat(100, 1)), conditional=False)
    assert figures == {"modes_covered": 1, "high_quality": 1, "reverse_kl": pytest.approx(math.log(8))}


def test_half_junk_counts_for_balance_but_covers_nothing(ring):
    junk = ring.centres[[1]] * 1.2  # nearest to mode 1, 20 std away
    samples = torch.cat([ring.centres[[0]].repeat(50, 1), junk.repeat(50, 1)])
    figures = prepared(ring).evaluate(batches(samples), conditional=False)
    assert figures == {"modes_covered": 1, "high_quality": 0.5, "reverse_kl": pytest.approx(math.log(4))}


def test_diverged_samples_are_junk(ring):
    samples = torch.cat([ring.centres, torch.full((8, 2), math.nan)])
    assert mode_figures(samples, ring.centres, 0.01) == {
        "modes_covered": 8,
        "high_quality": 0.5,
        "reverse_kl": pytest.approx(0, abs=1e-12),
    }
    assert math.isnan(mode_figures(samples[8:], ring.centres, 0.01)["reverse_kl"])


def test_state_replaces_the_data(ring):
    samples = ring.centres[torch.randint(8, (500,))] + 0.02 * torch.randn(500, 2)
    evaluator = prepared(ring)
    restored = MixtureEvaluator()
    restored.load_state(evaluator.state())
    restored.prepare(None, "cpu")
    assert restored.evaluate(batches(samples), conditional=False) == evaluator.evaluate(
        batches(samples), conditional=False
    )
    assert restored.stamp() == evaluator.stamp()


def test_mistakes_are_named(ring):
    del ring.centres
    with pytest.raises(ValueError, match="known modes"):
        prepared(ring)
    with pytest.raises(ValueError, match="no modes"):
        MixtureEvaluator().evaluate([], conditional=False)
    with pytest.raises(ValueError, match="metrics=digits"):
        MixtureEvaluator().load_state({"name": "digits"})
