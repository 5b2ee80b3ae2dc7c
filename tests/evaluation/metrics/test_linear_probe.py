"""The probe against scikit-learn's own pipeline, and that no label reaches the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ganforge.evaluation.metrics.linear_probe import LinearProbe, pooled_pixels, probe
from ganforge.evaluation.sample import Sample


class Model:
    """A discriminator with the given last features."""

    latent_dim, num_classes, device = 4, 10, torch.device("cpu")

    def __init__(self, features):
        self.features = features

    def generate(self, z, labels):
        raise AssertionError("nothing is generated")

    def discriminator_features(self, images, labels):
        return self.features(images, labels)


def real_side(images, labels, held_out=None):
    return Sample(
        count=len(images),
        labels=labels,
        images=lambda rows: images[rows],
        num_images=len(images),
        held_out=held_out,
    )


def made_by(features):
    return Sample(count=0, model=Model(features))


def pixels(images, labels):
    return images.flatten(1)


@pytest.mark.parametrize("seed", range(3))
def test_probe_agrees_with_scikit_learn(seed):
    random = np.random.RandomState(seed)
    x = (random.randn(300, 12) * random.rand(12) * 9 + random.randn(12) * 5).astype(np.float32)
    labels = (x[:, :3] / x[:, :3].std(axis=0) + 0.4 * random.randn(300, 3)).argmax(axis=1)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    expected = reference.fit(x[:200].astype(np.float64), labels[:200]).score(x[200:], labels[200:])
    x, labels = torch.from_numpy(x), torch.from_numpy(labels)
    assert probe(x[:200], labels[:200], x[200:], labels[200:]) == pytest.approx(expected, abs=0.011)


def test_pixels_of_digits(digits):
    real = real_side(digits.images, digits.labels)
    figures = LinearProbe()(made_by(pixels), real)
    assert figures["linear_probe"] == figures["linear_probe_pixels"]  # 8x8 is as they are
    assert figures["linear_probe"] > 0.93
    worse = LinearProbe()(made_by(lambda images, labels: images[:, :, 3, :2].flatten(1)), real)
    assert worse["linear_probe"] < 0.6
    assert worse["linear_probe_pixels"] == figures["linear_probe_pixels"]


def test_images_arrive_in_minus_one_to_one_with_label_zero(digits):
    seen = []

    def features(images, labels):
        seen.append((images.min().item(), images.max().item(), images.dtype, labels))
        return images.flatten(1)

    LinearProbe(200)(made_by(features), real_side(digits.images, digits.labels))
    assert min(low for low, *_ in seen) == -1
    assert max(high for _, high, *_ in seen) == 1
    assert all(dtype == torch.float32 for _, _, dtype, _ in seen)
    assert all(labels.dtype == torch.int64 and not labels.any() for *_, labels in seen)
    assert sum(len(labels) for *_, labels in seen) == 200


def test_a_discriminator_that_only_knows_the_label_has_nothing_to_tell(digits):
    embedding = torch.eye(10)
    figures = LinearProbe()(
        made_by(lambda images, labels: embedding[labels]), real_side(digits.images, digits.labels)
    )
    assert figures["linear_probe"] < 0.2
    joined = LinearProbe()(
        made_by(lambda images, labels: torch.cat([images.flatten(1), embedding[labels]], dim=1)),
        real_side(digits.images, digits.labels),
    )
    assert joined["linear_probe"] > 0.93


def test_held_out_images_are_the_test(digits):
    wrong = real_side(digits.images[1500:], (digits.labels[1500:] + 1) % 10)
    right = real_side(digits.images[1500:], digits.labels[1500:])
    train = digits.images[:1500], digits.labels[:1500]
    assert LinearProbe()(made_by(pixels), real_side(*train, held_out=right))["linear_probe"] > 0.85
    assert LinearProbe()(made_by(pixels), real_side(*train, held_out=wrong))["linear_probe"] < 0.1
    unlabelled = Sample(count=9, images=lambda rows: digits.images[rows], num_images=9)
    assert LinearProbe()(made_by(pixels), real_side(*train, held_out=unlabelled))["linear_probe"] > 0.9


def test_pixels_are_averaged():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    means = image.double().reshape(8, 2, 8, 2).mean(dim=(1, 3)).flatten() / 127.5 - 1
    assert torch.allclose(pooled_pixels(image)[0].double(), means, atol=1e-6)
    assert pooled_pixels(torch.zeros(2, 3, 5, 30, dtype=torch.uint8)).shape == (2, 3 * 5 * 8)


def test_the_pixels_probe_is_fitted_once_and_random_numbers_are_left_alone(digits):
    reads = []

    def read(rows):
        reads.append(len(rows))
        return digits.images[rows]

    real = Sample(count=1797, labels=digits.labels, images=read, num_images=1797)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.inference_mode():
        first = LinearProbe(300)(made_by(pixels), real)
        assert sum(reads) == 600
        assert LinearProbe(300)(made_by(pixels), real) == first
    assert sum(reads) == 900
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_what_it_lacks(digits):
    real = real_side(digits.images, digits.labels)
    metric = LinearProbe()
    assert metric.lacks(made_by(pixels), real) is None
    assert metric.lacks(Sample(count=5), real) == "the generated side has no model"
    assert "no discriminator" in metric.lacks(made_by(lambda images, labels: None), real)
    assert "labels" in metric.lacks(made_by(pixels), Sample(count=5, images=lambda rows: rows))
    single = real_side(digits.images, torch.zeros(1797, dtype=torch.int64))
    assert metric.lacks(made_by(pixels), single) == "the real side has fewer than 2 classes"


def test_small_constant_and_bad_input(digits):
    labels = torch.tensor([0, 1, 0, 1])
    flat = torch.full((4, 1, 8, 8), 7, dtype=torch.uint8)
    assert 0 <= LinearProbe(4)(made_by(pixels), real_side(flat, labels))["linear_probe"] <= 1
    with pytest.raises(ValueError, match="linear_probe needs at least 4 images"):
        LinearProbe()(made_by(pixels), real_side(flat[:3], labels[:3]))
    with pytest.raises(ValueError, match="linear_probe: the 2 images to train on are all of one class"):
        probe(torch.ones(2, 3), torch.tensor([1, 1]), torch.ones(2, 3), torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="linear_probe: the discriminator's features are not finite"):
        LinearProbe()(
            made_by(lambda images, labels: images.flatten(1) / 0), real_side(digits.images, digits.labels)
        )
    with pytest.raises(ValueError, match="linear_probe: num_images is 3"):
        LinearProbe(3)
