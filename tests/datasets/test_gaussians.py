"""The mixtures are those of the papers: their modes, spread, balance and labels."""

import math

import pytest
import torch

from ganforge.datasets.gaussians import gaussian_grid, gaussian_ring
from ganforge.datasets.samples import DataError


def nearest(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    distance, mode = torch.cdist(points, centres).min(dim=1)
    return distance, mode


@pytest.mark.parametrize(("build", "modes", "std"), [(gaussian_ring, 8, 0.01), (gaussian_grid, 25, 0.05)])
def test_points_follow_the_mixture(build, modes, std):
    data = build()
    assert (len(data), data.shape, data.image_size, data.channels) == (100_000, (2,), None, 2)
    assert (data.num_classes, data.class_names, data.flip, data.in_memory) == (0, [], False, True)
    assert data.labels.eq(0).all()
    assert data[7].dtype == torch.float32
    assert data.centres.shape == (modes, 2)
    assert data.std == std
    distance, mode = nearest(data.data, data.centres)
    counts = torch.bincount(mode, minlength=modes)
    assert (counts - len(data) / modes).abs().max() < 6 * math.sqrt(len(data) / modes)
    offsets = data.data - data.centres[mode]
    assert offsets.std(dim=0) == pytest.approx([std, std], rel=0.02)
    # Of a round Gaussian in the plane, 1 - exp(-9/2) lies within three standard deviations.
    assert (distance < 3 * std).float().mean().item() == pytest.approx(1 - math.exp(-4.5), abs=0.002)


def test_ring_and_grid_centres():
    ring = gaussian_ring(modes=6, radius=3.0, size=10).centres
    assert ring[0].tolist() == [3.0, 0.0]
    torch.testing.assert_close(ring.norm(dim=1), torch.full((6,), 3.0))
    torch.testing.assert_close((ring - ring.roll(1, 0)).norm(dim=1), torch.full((6,), 3.0))
    grid = gaussian_grid(size=10).centres.tolist()
    assert sorted(grid) == [[x, y] for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]


def test_asking_for_the_modes_as_classes_labels_the_same_points():
    plain, labelled = gaussian_grid(size=500), gaussian_grid(size=500, num_classes=25)
    assert torch.equal(plain.data, labelled.data)
    assert labelled.num_classes == len(labelled.class_names) == 25
    assert torch.equal(nearest(labelled.data, labelled.centres)[1], labelled.labels)
    assert plain.fingerprint() != labelled.fingerprint()


def test_the_seed_decides():
    assert gaussian_ring(size=50).fingerprint() == gaussian_ring(size=50).fingerprint()
    assert gaussian_ring(size=50).fingerprint() != gaussian_ring(size=50, seed=1).fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 5}, "data.num_classes=5 does not fit gaussian_ring, which has 8"),
        ({"channels": 3}, "data.channels=3"),
        ({"image_size": 8}, "data.image_size=8"),
        ({"modes": 0}, "data.modes=0"),
        ({"size": 0}, "data.size=0"),
        ({"std": -1.0}, "data.std=-1.0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        gaussian_ring(**arguments)
