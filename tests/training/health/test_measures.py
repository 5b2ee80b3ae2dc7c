"""What checks go by, against closed forms and references."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.training.health.measures import SingularValues, distances, diversity, excerpt, movement, weights


def test_distances_are_those_within_each_class() -> None:
    images = torch.randn(12, 2, 3, 3)
    found = distances(images, 3)
    assert found.shape == (3, 4, 4)
    a, b = images[4], images[6]
    assert found[1, 0, 2].item() == pytest.approx((a - b).norm().item(), rel=1e-5)


def test_large_pictures_are_averaged_down() -> None:
    """Noise of single pixels goes away, what is in a picture stays."""
    flat = torch.rand(4, 1, 1, 1).expand(4, 1, 64, 64)
    torch.testing.assert_close(distances(flat, 1), distances(flat[..., :32, :32], 1))


def test_real_images_are_as_diverse_as_themselves() -> None:
    within = distances(torch.randn(40, 5), 4)
    spread, doubles = diversity(within, within)
    assert spread.item() == pytest.approx(1)
    assert doubles.item() == 0


def test_images_that_are_all_the_same_have_no_diversity() -> None:
    real = distances(torch.randn(40, 5), 4)
    spread, doubles = diversity(distances(torch.randn(4, 1, 5).expand(4, 10, 5).flatten(0, 1), 4), real)
    assert spread.item() == 0, "though the classes differ"
    assert doubles.item() == 1


def test_scale_and_pairs_of_doubles_are_seen() -> None:
    images = torch.randn(40, 5)
    real = distances(images, 4)
    spread, _ = diversity(distances(0.3 * images, 4), real)
    assert spread.item() == pytest.approx(0.3, rel=1e-4)
    twins = images.clone()
    twins[1], twins[11] = twins[0], twins[10]
    assert diversity(distances(twins, 4), real)[1].item() == pytest.approx(4 / 40)


def test_movement_is_relative_and_of_few_numbers() -> None:
    parameters = [torch.full((1000, 3), 2.0), torch.ones(5)]
    before = excerpt(parameters)
    assert len(before) == 256 + 5
    assert movement(before, excerpt(parameters)) == 0
    assert movement(before, excerpt([1.1 * p for p in parameters])) == pytest.approx(0.1, rel=1e-5)
    assert movement(torch.zeros(3), torch.ones(3)) == 0
    assert len(excerpt([])) == 0


def test_singular_values_are_those_of_the_decomposition() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    torch.manual_seed(seed)
    side = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(6, 5), nn.BatchNorm1d(5))
    with torch.no_grad():  # a gap between the first two values, by which the power method goes
        side[1].weight.copy_(
            torch.linalg.qr(torch.randn(5, 5))[0] @ torch.eye(5, 6) * torch.tensor([4.0, 1, 1, 1, 1, 1])
        )
    values = SingularValues(side, torch.Generator().manual_seed(0))
    largest = values.largest(steps=100)
    expected = max(torch.linalg.matrix_norm(w.flatten(1), 2).item() for w in weights(side))
    assert largest is not None
    assert largest.item() == pytest.approx(expected, rel=1e-2)
    with torch.no_grad():
        side[1].weight.mul_(10)
    followed = values.largest()
    assert followed is not None
    assert followed.item() == pytest.approx(40, rel=1e-2), "one step follows"


def test_weights_that_start_at_zero_are_found_once_they_are_not() -> None:
    side = nn.Linear(4, 3, bias=False)
    nn.init.zeros_(side.weight)
    values = SingularValues(side, torch.Generator().manual_seed(0))
    assert values.largest(steps=3) == 0
    nn.init.eye_(side.weight)
    assert values.largest(steps=30) == pytest.approx(1, rel=1e-3)


def test_normalised_and_frozen_weights_are_left_out() -> None:
    side = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2), nn.Linear(2, 2))
    side[2].requires_grad_(False)
    assert [w.shape for w in weights(side)] == [(2, 4)]
    assert SingularValues(nn.ReLU(), torch.Generator()).largest() is None
