"""The patches' distance against a float64 computation by SciPy, and what has to hold of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ganforge.evaluation.metrics.pixel_distance import (
    PixelDistance,
    laplacian_pyramid,
    patch_positions,
    patch_side,
    pyramid_sides,
)
from ganforge.evaluation.sample import Sample


def sample(images, reads=None):
    def read(rows):
        if reads is not None:
            reads.append(len(rows))
        return images[rows]

    return Sample(count=len(images), images=read, num_images=len(images))


def random_images(seed, *shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def blobs(seed, count, size=32, channels=3):
    """Smooth random images with structure at every scale."""
    noise = np.random.RandomState(seed).randn(count, channels, size, size)
    smooth = sum(s * ndimage.gaussian_filter(noise, (0, 0, s, s), mode="wrap") for s in (1, 2, 4))
    return torch.from_numpy(np.clip(128 + 40 * smooth, 0, 255).astype(np.uint8))


def pyramid_by_scipy(image):
    """float64 (H, W) -> levels, with SciPy's mirrored correlation."""
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    levels = [image]
    while min(levels[-1].shape) >= 32:
        levels.append(ndimage.correlate(levels[-1], kernel, mode="mirror")[::2, ::2])
    for i in range(len(levels) - 1):
        spread = np.zeros_like(levels[i])
        spread[::2, ::2] = levels[i + 1]
        levels[i] = levels[i] - 4 * ndimage.correlate(spread, kernel, mode="mirror")
    return levels


def distance_by_hand(one, other, patches_per_image, projections):
    """One image, one patch and one direction at a time, in float64."""
    result = []
    sides = pyramid_sides(*one.shape[-2:])
    for level, side in enumerate(sides):
        p = patch_side(*side)
        projected = []
        for images in (one, other):
            top, left = patch_positions(len(images) * patches_per_image, side, level)
            found = []
            for i, image in enumerate(images.double().numpy()):
                pyramid = [pyramid_by_scipy(channel)[level] for channel in image]
                for j in range(i * patches_per_image, (i + 1) * patches_per_image):
                    found.append([channel[top[j] : top[j] + p, left[j] : left[j] + p] for channel in pyramid])
            values = np.array(found)
            values -= values.mean(axis=(0, 2, 3), keepdims=True)
            values /= values.std(axis=(0, 2, 3), keepdims=True)
            random = torch.randn(
                projections,
                values[0].size,
                generator=torch.Generator().manual_seed(2027),
                dtype=torch.float64,
            )
            directions = (random / random.norm(dim=1, keepdim=True)).numpy()
            projected.append([np.sort(values.reshape(len(values), -1) @ d) for d in directions])
        result.append(np.abs(np.array(projected[0]) - np.array(projected[1])).mean())
    return 1000 * np.mean(result)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 5, 4), (1, 65, 40)])
def test_agrees_with_float64(shape):
    one, other = random_images(1, 6, *shape), random_images(2, 6, *shape) // 2 + 20
    expected = distance_by_hand(one, other, 5, 16)
    figures = PixelDistance(patches_per_image=5, projections=16)(sample(one), sample(other))
    assert figures == {"pixel_swd": pytest.approx(expected, rel=1e-4)}
    assert expected > 0


@pytest.mark.parametrize(
    ("side", "levels", "patch"),
    [(1, 1, 1), (4, 1, 1), (6, 1, 3), (8, 1, 3), (16, 1, 7), (28, 1, 7), (31, 1, 7), (32, 2, 7), (256, 5, 7)],
)
def test_levels_and_patches(side, levels, patch):
    sides = pyramid_sides(side, side)
    assert len(sides) == levels
    assert sides[-1][0] >= 16 or levels == 1
    assert patch_side(side, side) == patch
    top, left = patch_positions(500, (side, side), 0)
    assert set(top.tolist()) == set(left.tolist()) == set(range(side - patch + 1)) or side > 100


def test_pyramid_adds_up_to_the_image():
    images = random_images(3, 2, 3, 64, 49).double()
    fine, coarse = laplacian_pyramid(images)
    assert coarse.shape[-2:] == (32, 25)
    constant = laplacian_pyramid(torch.full((1, 1, 64, 49), 7.0))
    assert constant[0].abs().max() < 1e-5
    assert torch.allclose(constant[1], torch.tensor(7.0))
    spread = [pyramid_by_scipy(channel)[0] for channel in images[0].numpy()]
    assert np.allclose(fine[0].numpy(), spread)


def test_zero_for_equal_sets_and_grows_with_noise():
    images, others = blobs(4, 600, channels=1), blobs(5, 600, channels=1)
    distance = PixelDistance(patches_per_image=32, projections=32)
    assert distance(sample(images), sample(images)) == {"pixel_swd": 0}
    noise = np.random.RandomState(6).randn(*images.shape)
    figures = [
        distance(
            sample(torch.from_numpy(np.clip(others.numpy() + s * noise, 0, 255).astype(np.uint8))),
            sample(images),
        )["pixel_swd"]
        for s in (0, 10, 20, 40, 80)
    ]
    assert figures == sorted(figures)
    assert figures[-1] > 2 * figures[0]


def test_contrast_and_brightness_of_a_set_do_not_matter():
    images = blobs(7, 60) // 4
    other = sample(blobs(8, 60))
    distance = PixelDistance(patches_per_image=8, projections=16)
    figures = [distance(sample(x), other)["pixel_swd"] for x in (images, images * 2, images * 3 + 50)]
    assert figures == pytest.approx([figures[0]] * 3, rel=1e-3)


def test_constant_images_give_a_finite_figure():
    flat = torch.full((10, 3, 32, 32), 93, dtype=torch.uint8)
    distance = PixelDistance(patches_per_image=4, projections=8)
    assert distance(sample(flat), sample(flat)) == {"pixel_swd": 0}
    against = distance(sample(flat), sample(random_images(9, 10, 3, 32, 32)))["pixel_swd"]
    assert 500 < against < 1000  # E|N(0, 1)| is 0.8


def test_a_trainers_precision_does_not_matter():
    one, other = sample(random_images(1, 9, 3, 32, 32)), sample(random_images(2, 9, 3, 32, 32))
    distance = PixelDistance(patches_per_image=4, projections=8)
    expected = distance(one, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fresh = sample(random_images(2, 9, 3, 32, 32))
        assert distance(one, fresh) == expected


def test_as_many_of_each_side_as_the_smaller_has_and_the_real_side_read_once():
    reads = []
    real = sample(random_images(10, 300, 1, 8, 8), reads)
    generated = sample(random_images(11, 40, 1, 8, 8))
    distance = PixelDistance(patches_per_image=4, projections=8)
    state = torch.get_rng_state()
    first = distance(generated, real)
    once = sum(reads)
    assert once < 50
    assert distance(generated, real) == first
    assert sum(reads) < once + 5  # only its shape is asked for again
    assert torch.equal(torch.get_rng_state(), state)
    distance(sample(random_images(12, 50, 1, 8, 8)), real)
    assert sum(reads) > once + 45


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"pixel_swd: projections is 0"):
        PixelDistance(projections=0)
    distance = PixelDistance()
    four = sample(random_images(13, 4, 3, 8, 8))
    assert distance(four, four) == {"pixel_swd": 0}
    with pytest.raises(ValueError, match=r"pixel_swd compares images of one shape.*\(1, 8, 8\)"):
        distance(four, sample(random_images(13, 4, 1, 8, 8)))
    with pytest.raises(ValueError, match=r"pixel_swd needs at least 2 images.*not 1"):
        distance(four, sample(random_images(13, 1, 3, 8, 8)))
    assert distance.lacks(four, Sample(count=4)) == "the real side has no images"
    assert distance.lacks(four, four) is None
