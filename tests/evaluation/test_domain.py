"""The domain classifier is trained once for a data set, kept in the cache and in the checkpoint."""

from __future__ import annotations

import pytest
import torch

from ganforge.evaluation.domain import Domain
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.class_consistency import ClassConsistency
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.kid import KID


@pytest.fixture
def make_domain(tmp_path):
    def make(steps=60, folder="c"):
        compute = {"fid": FID(), "kid": KID(subset_size=100), "class_consistency": ClassConsistency()}
        return FeatureEvaluator(Domain(steps), compute, 100, 100, cache_dir=str(tmp_path / folder))

    return make


def test_trained_once_cached_and_stamped(make_domain, digits, monkeypatch, capsys):
    first = make_domain()
    before = torch.get_rng_state()
    with torch.inference_mode():  # as a trainer's evaluation may be
        first.prepare(digits, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert first.stamp()["extractor"]["classifier_held_out_accuracy"] > 0.8
    assert "held-out images of digits" in capsys.readouterr().err
    figures = first.evaluate(digits.generated(), conditional=True)
    assert figures["fid"] == pytest.approx(0, abs=1e-3)
    assert figures["class_consistency"] > 0.8

    monkeypatch.setattr("ganforge.evaluation.domain.train_classifier", None)  # not called again
    second = make_domain()
    second.prepare(digits, "cpu")
    assert second.evaluate(digits.generated(), conditional=True) == figures
    assert second.stamp() == first.stamp()


def test_training_again_gives_the_same_weights(make_domain, digits):
    stamps = []
    for folder in "ab":
        evaluator = make_domain(steps=5, folder=folder)
        evaluator.prepare(digits, "cpu")
        stamps.append(evaluator.stamp())
    assert stamps[0] == stamps[1]


def test_state_carries_the_classifier(make_domain, digits):
    evaluator = make_domain(steps=20)
    evaluator.prepare(digits, "cpu")
    expected = evaluator.evaluate(digits.generated(), conditional=True)
    restored = make_domain(folder="empty")
    restored.load_state(evaluator.state())
    restored.prepare(None, "cpu")
    assert restored.evaluate(digits.generated(), conditional=True) == expected
    assert restored.stamp() == evaluator.stamp()


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 28), (3, 32), (3, 70)])
def test_any_size(make_domain, digits, channels, size):
    images = torch.randint(0, 256, (60, channels, size, size)).to(torch.uint8)
    data = type(digits)(images, torch.arange(60) % 3, name="random", num_classes=3)
    evaluator = make_domain(steps=2)
    evaluator.prepare(data, "cpu")
    sample = evaluator.read(data)
    assert sample.features.shape == (60, 64)
    assert sample.logits.shape == (60, 3)
    assert evaluator.stamp()["extractor"]["resize"].startswith(f"{min(size, 32)}x{min(size, 32)}")


def test_data_without_labels_is_refused(make_domain, digits):
    unlabelled = type(digits)(digits.images, torch.zeros(1797, dtype=torch.int64), num_classes=0)
    with pytest.raises(ValueError, match=r"0 classes.*metrics=inception"):
        make_domain().prepare(unlabelled, "cpu")
    few = type(digits)(digits.images[:15], digits.labels[:15])
    with pytest.raises(ValueError, match=r"10 classes from the 15 images"):
        make_domain().prepare(few, "cpu")
    with pytest.raises(ValueError, match="labelled data set"):
        make_domain().prepare(None, "cpu")
