"""The score with the digits that come with scikit-learn: what teaches, what does not, and what it may not disturb."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganforge.evaluation.metrics import classification_accuracy
from ganforge.evaluation.metrics.classification_accuracy import ClassificationAccuracy
from ganforge.evaluation.sample import Sample

STEPS = 60


def side(images, labels, held_out=None, reads=None):
    def read(rows):
        if reads is not None:
            reads.append(rows)
        return images[rows]

    return Sample(count=len(images), labels=labels, images=read, num_images=len(images), held_out=held_out)


@pytest.fixture(scope="module")
def score():
    return ClassificationAccuracy(STEPS)


@pytest.fixture(scope="module")
def real():
    from ganforge.evaluation.train_digits_classifier import digits_images

    images, labels = digits_images()
    return side(images[:1000], labels[:1000])


def test_good_images_with_right_and_with_wrong_labels(score, real, digits):
    good = score(side(digits.images[1000:], digits.labels[1000:]), real)
    assert good["cas_real"] > 0.9
    assert good["cas"] > 0.85
    assert good["cas_reverse"] > 0.85
    mixed = digits.labels[1000:][torch.randperm(797, generator=torch.Generator().manual_seed(1))]
    wrong = score(side(digits.images[1000:], mixed), real)
    assert wrong["cas_real"] == good["cas_real"]
    assert wrong["cas"] < 0.35
    assert wrong["cas_reverse"] < 0.25


def test_one_image_of_each_class_is_right_and_teaches_little(score, real, digits):
    firsts = torch.tensor([int((digits.labels == k).nonzero()[3]) for k in range(10)]).repeat(30)
    collapsed = score(side(digits.images[firsts], digits.labels[firsts]), real)
    assert collapsed["cas_reverse"] > 0.85
    assert collapsed["cas"] < collapsed["cas_real"] - 0.15


def test_held_out_images_are_the_test(digits):
    train = digits.images[:1000], digits.labels[:1000]
    generated = side(digits.images[:1000], digits.labels[:1000])
    right = side(digits.images[1000:], digits.labels[1000:])
    wrong = side(digits.images[1000:], (digits.labels[1000:] + 1) % 10)
    figures = ClassificationAccuracy(STEPS)(generated, side(*train, held_out=right))
    # All of the real images are trained on, as all of the generated ones, which are the same.
    assert figures["cas"] == figures["cas_real"] > 0.85
    figures = ClassificationAccuracy(STEPS)(generated, side(*train, held_out=wrong))
    assert figures["cas"] < 0.1
    assert figures["cas_real"] < 0.1
    assert figures["cas_reverse"] > 0.9


def test_the_real_side_is_trained_and_read_once(digits, monkeypatch):
    calls, reads = [], []
    train = classification_accuracy.train_classifier

    def counted(*args, **kwargs):
        calls.append(1)
        train(*args, **kwargs)

    monkeypatch.setattr(classification_accuracy, "train_classifier", counted)
    real, score = side(digits.images[:500], digits.labels[:500], reads=reads), ClassificationAccuracy(3)
    generated = side(digits.images[500:], digits.labels[500:])
    first = score(generated, real)
    assert len(calls) == 2
    once = sum(map(len, reads))
    assert once == 501  # one for the shape
    assert score(generated, real) == first
    assert len(calls) == 3
    assert sum(map(len, reads)) == once


def test_inside_inference_mode_and_without_a_trace_in_random_numbers(digits):
    real, score = side(digits.images[:300], digits.labels[:300]), ClassificationAccuracy(5)
    generated = side(digits.images[300:600], digits.labels[300:600])
    expected = score(generated, real)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.inference_mode():
        inside = side(generated.images(torch.arange(300)).clone(), generated.labels.clone())
        fresh = side(digits.images[:300].clone(), digits.labels[:300].clone())
        assert score(inside, fresh) == expected
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert score(generated, real) == expected
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 28), (3, 70)])
def test_any_size_and_constant_images(channels, size):
    labels = torch.tensor([0, 1, 2, 0])
    flat = torch.full((4, channels, size, size), 9, dtype=torch.uint8)
    random = torch.Generator().manual_seed(size)
    noise = torch.randint(0, 256, flat.shape, generator=random).to(torch.uint8)
    for generated in (flat, noise):
        figures = ClassificationAccuracy(2)(side(generated, labels), side(noise, labels))
        assert set(figures) == {"cas", "cas_real", "cas_reverse"}
        assert all(0 <= value <= 1 for value in figures.values())


def test_what_it_lacks_and_refuses(real, digits):
    score = ClassificationAccuracy()
    unlabelled = Sample(count=9, images=lambda rows: digits.images[rows], num_images=9)
    assert score.lacks(real, real) is None
    assert score.lacks(unlabelled, real) == "the generated side has no labels"
    single = side(digits.images, torch.zeros(1797, dtype=torch.int64))
    assert score.lacks(real, single) == "the real side has fewer than 2 classes"
    assert "fewer than 4" in score.lacks(side(digits.images[:3], digits.labels[:3]), real)
    unreadable = Sample(
        count=9, labels=digits.labels[:9], images=lambda rows: digits.images[rows], num_images=2
    )
    with pytest.raises(ValueError, match=r"cas needs at least 4 images.*not 2"):
        ClassificationAccuracy(1)(unreadable, real)
    with pytest.raises(ValueError, match="cas: steps is 0"):
        ClassificationAccuracy(0)
    with pytest.raises(ValueError, match="cas: num_images is 2"):
        ClassificationAccuracy(num_images=2)
