"""Copies are told from new images; both figures against counting by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from ganforge.evaluation.metrics.memorisation import (
    Memorisation,
    nearest_training_images,
    share_of_smaller,
)
from ganforge.evaluation.sample import Sample


def normal(seed, n, dimensions=6):
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def sample(features, images=None, held_out=None):
    return Sample(
        count=len(features),
        features=features,
        images=None if images is None else lambda rows: images[rows],
        num_images=0 if images is None else len(images),
        held_out=None if held_out is None else sample(held_out),
    )


def by_hand(generated, training, held_out):
    """Distances one by one in float64, pairs counted one by one."""
    g, t = generated.double(), training.double()
    between = torch.cdist(t, t, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    radii = between.min(dim=1).values
    distances, rows = torch.cdist(g, t, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    expected = radii
    if held_out is not None:
        expected = (
            torch.cdist(held_out.double(), t, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values
        )
    authentic = {
        "authenticity": sum(float(d > radii[i]) for d, i in zip(distances, rows, strict=True)) / len(g)
    }
    if held_out is not None:
        beside = torch.cdist(held_out.double(), t, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        authentic["authenticity_real"] = float((expected > radii[beside]).double().mean())
    pairs = [0.5 * float(a == b) + float(a < b) for a in distances for b in expected]
    return authentic | {"memorisation": sum(pairs) / len(pairs)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_held_out", [True, False])
def test_agrees_with_counting(seed, with_held_out):
    training, held_out = normal(seed, 60), normal(seed + 100, 25) if with_held_out else None
    generated = torch.cat([normal(seed + 200, 20), training[:7], training[10:20] + 0.1])
    figures = Memorisation()(sample(generated), sample(training, held_out=held_out))
    assert figures == pytest.approx(by_hand(generated, training, held_out), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_held_out", [True, False])
def test_new_images_and_copies(seed, with_held_out):
    training = normal(seed, 1500, 2)
    real = sample(training, held_out=normal(seed + 50, 1500, 2) if with_held_out else None)
    new = Memorisation()(sample(normal(seed + 90, 1500, 2)), real)
    assert new["memorisation"] == pytest.approx(0.5, abs=0.05)
    # Not each other's nearest neighbours: 1 - 6π / (8π + 3√3) in the plane.
    expected = 1 - 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3))
    assert new["authenticity"] == pytest.approx(expected, abs=0.05)
    assert ("authenticity_real" in new) == with_held_out
    assert new.get("authenticity_real", expected) == pytest.approx(expected, abs=0.05)
    copies = Memorisation()(sample(training[:700]), real)
    assert (copies["memorisation"], copies["authenticity"]) == (1, 0)
    nearly = Memorisation()(sample(training[:700] + 1e-4), real)
    assert nearly["memorisation"] > 0.98
    assert nearly["authenticity"] < 0.02
    half = Memorisation()(sample(torch.cat([training[:700], normal(seed + 91, 700, 2)])), real)
    assert half["memorisation"] == pytest.approx(0.75, abs=0.05)
    far = Memorisation()(sample(normal(seed + 92, 500, 2) + 50), real)
    assert far["memorisation"] < 0.01
    assert far["authenticity"] > 0.95


def test_order_does_not_matter():
    generated, training, held_out = normal(1, 80), normal(2, 90), normal(3, 70)
    figures = Memorisation()(sample(generated), sample(training, held_out=held_out))
    mixed = Memorisation()(sample(generated.flip(0)), sample(training.flip(0), held_out=held_out.flip(0)))
    assert mixed == pytest.approx(figures, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_share_of_smaller_is_mann_whitneys_u(seed):
    random = torch.Generator().manual_seed(seed)
    one, other = (torch.randint(0, 12, (n,), generator=random).double() for n in (30, 47))
    u = mannwhitneyu(other.numpy(), one.numpy()).statistic
    assert share_of_smaller(one, other) == pytest.approx(u / (30 * 47), abs=1e-12)
    truth = torch.cat([torch.zeros(30), torch.ones(47)]).numpy()
    area = roc_auc_score(truth, torch.cat([one, other]).numpy())
    assert share_of_smaller(one, other) == pytest.approx(area, abs=1e-12)
    assert share_of_smaller(one, other) + share_of_smaller(other, one) == pytest.approx(1)


def test_small_and_constant_samples():
    same = torch.ones(4, 3)
    assert Memorisation()(sample(same), sample(same)) == {"memorisation": 0.5, "authenticity": 0}
    figures = Memorisation()(sample(same), sample(normal(5, 4, 3)))
    assert all(0 <= value <= 1 for value in figures.values())
    assert Memorisation()(sample(normal(6, 4, 3)), sample(same))["authenticity"] == 1
    with pytest.raises(ValueError, match="memorisation needs at least 2 real features, not 1"):
        Memorisation()(sample(same), sample(same[:1]))
    assert Memorisation().lacks(Sample(count=4), sample(same)) == "the generated side has no features"


def test_picture_of_nearest_training_images():
    training, random = normal(7, 40), torch.Generator().manual_seed(8)
    training_images = torch.randint(0, 256, (40, 3, 4, 4), generator=random).to(torch.uint8)
    generated = torch.cat([normal(9, 5) + 9, training[[11]], training[[3]] + 0.01])
    generated_images = torch.randint(0, 256, (7, 3, 4, 4), generator=random).to(torch.uint8)
    real = sample(training, training_images)
    picture = nearest_training_images(sample(generated, generated_images), real, count=3)
    assert picture.shape == (3 * 6, 3, 4, 4)
    assert picture.dtype == torch.uint8
    rows = picture.unflatten(0, (3, 6))
    assert torch.equal(rows[0, 0], generated_images[5])
    assert torch.equal(rows[0, 1], training_images[11])
    assert torch.equal(rows[1, 0], generated_images[6])
    assert torch.equal(rows[1, 1], training_images[3])
    order = (training - generated[6]).norm(dim=1).argsort()[:5]
    assert torch.equal(rows[1, 1:], training_images[order])
    everything = nearest_training_images(sample(generated, generated_images), real, count=50, neighbours=2)
    assert everything.shape == (7 * 3, 3, 4, 4)
    # Only images that can be read are shown.
    few = nearest_training_images(
        sample(generated, generated_images[:2]), sample(training, training_images[:9]), 9
    )
    assert few.shape == (2 * 6, 3, 4, 4)


def test_picture_refuses_what_it_cannot_show():
    images = torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
    side = sample(normal(1, 6), images)
    with pytest.raises(ValueError, match="not 0 and 5"):
        nearest_training_images(side, side, 0)
    with pytest.raises(ValueError, match=r"7 nearest images.*not 6 and 6"):
        nearest_training_images(side, side, 1, neighbours=7)
    other = sample(normal(1, 6), torch.zeros(6, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) beside \(3, 2, 2\)"):
        nearest_training_images(side, other, 1)
