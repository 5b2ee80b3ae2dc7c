"""The shipped classifier is small and right, and reads images of any size and colour."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.classifier import accuracy, build_classifier, shift, train_classifier
from ganforge.evaluation.digits import Digits
from ganforge.evaluation.train_digits_classifier import SHIPPED_WEIGHTS, digits_images, digits_split


@pytest.fixture(scope="module")
def extractor():
    extractor = Digits()
    extractor.prepare(None, "cpu", Cache())
    return extractor


def test_shipped_weights_are_small_and_right(extractor):
    assert SHIPPED_WEIGHTS.stat().st_size < 300_000
    images, labels = digits_images()
    train, held_out = digits_split(labels)
    assert not set(train.tolist()) & set(held_out.tolist())
    assert torch.bincount(labels[held_out]).min() >= 30
    right = accuracy(extractor.network.classifier, held_out, lambda rows: (images[rows], labels[rows]), "cpu")
    assert right > 0.98


def test_features_are_standardised(extractor):
    features, logits = extractor.extract(digits_images()[0])
    assert features.shape == (1797, 64)
    assert logits.shape == (1797, 10)
    assert features.mean(dim=0).abs().max() < 0.3
    assert ((features.std(dim=0) > 0.7) & (features.std(dim=0) < 1.5)).all()


def test_colour_and_size_are_brought_to_grey_8x8(extractor):
    images, labels = digits_images()
    grey, _ = extractor.extract(images[:50])
    colour, _ = extractor.extract(images[:50].expand(-1, 3, -1, -1))
    torch.testing.assert_close(colour, grey, rtol=0, atol=1e-4)
    large = F.interpolate(images[:500].float(), (28, 28), mode="bilinear").to(torch.uint8)
    _, logits = extractor.extract(large)
    assert (logits.argmax(dim=1) == labels[:500]).float().mean() > 0.9


def test_shift_moves_each_image_by_its_own_offset():
    x = torch.rand(3, 2, 6, 5)
    moved = shift(x, torch.tensor([[0, 0], [1, -1], [-1, 0]]))
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1, :, :-1, 1:], x[1, :, 1:, :-1])
    assert torch.equal(moved[2, :, 1:], x[2, :, :-1])
    assert torch.equal(moved[2, :, 0], x[2, :, 0])


def test_training_is_a_function_of_its_seed():
    images, labels = digits_images()

    def trained(seed):
        classifier = build_classifier(8, 1, 10, seed=seed)
        rows = torch.arange(500)
        train_classifier(classifier, rows, lambda r: (images[r], labels[r]), steps=5, device="cpu", seed=seed)
        return classifier.embed.weight

    before = torch.get_rng_state()
    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
    assert torch.equal(torch.get_rng_state(), before)
