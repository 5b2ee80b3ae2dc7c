"""Resizing protocols against Pillow, against the rule of TensorFlow 1 and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ganforge.evaluation import resizing
from ganforge.evaluation.resizing import PROTOCOLS, Preparation, clean, tensorflow


def pillow(images, size):
    """Each channel as a floating-point picture through Pillow's bicubic, clipped."""
    channels = images.flatten(0, 1).numpy().astype(np.float32)
    resized = [
        np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC)) for x in channels
    ]
    return torch.tensor(np.stack(resized)).clamp(0, 255).unflatten(0, images.shape[:2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(5, 5), (32, 32), (64, 40), (298, 301), (299, 299), (480, 640)])
def test_clean_is_pillows_bicubic(shape, channels, random_images):
    images = random_images(2, channels, *shape)
    ours = clean(images, 299)
    assert ours.dtype == torch.float32
    assert ours.shape == (2, channels, 299, 299)
    torch.testing.assert_close(ours, pillow(images, 299), rtol=0, atol=1e-3)


def test_clean_clips_and_does_not_round(random_images):
    images = 255 * (random_images(1, 1, 16, 16) > 127).byte()  # black and white: bicubic overshoots
    resized = clean(images, 40)
    assert resized.min() == 0
    assert resized.max() == 255
    assert (resized != resized.round()).any()


def test_clean_does_not_depend_on_its_blocks(random_images, monkeypatch):
    images = random_images(5, 3, 20, 20)
    whole = clean(images, 31)
    monkeypatch.setattr(resizing, "_BLOCK", 2 * 3 * 20 * 20)
    assert torch.equal(clean(images, 31), whole)


def test_tensorflow_1_samples_at_whole_steps_from_the_corner():
    images = torch.tensor([[[[0, 100], [200, 60]]]], dtype=torch.uint8)
    expected = torch.tensor([[0, 50, 100, 100], [100, 90, 80, 80], [200, 130, 60, 60], [200, 130, 60, 60]])
    assert torch.equal(tensorflow(images, 4)[0, 0], expected.float())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [3, 17, 50])
def test_constant_images_stay_constant(protocol, size):
    resize, _ = PROTOCOLS[protocol]
    images = torch.tensor([0, 7, 255], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 17, 17)
    resized = resize(images, size)
    torch.testing.assert_close(
        resized, images[:, :, :1, :1].float().expand(-1, -1, size, size), atol=1e-4, rtol=0
    )


def test_clean_and_tensorflow_leave_the_right_size_alone(random_images):
    images = random_images(2, 3, 24, 24)
    assert torch.equal(clean(images, 24), images.float())
    assert torch.equal(tensorflow(images, 24), images.float())


def test_words_tell_the_protocols_apart():
    words = {str(Preparation(protocol, 299, (0.5,), (0.5,))) for protocol in PROTOCOLS}
    assert len(words) == len(PROTOCOLS)
    assert str(Preparation("tensorflow", 299, (0.5,), (0.5,))) == "299x299, bilinear as in TensorFlow 1"


def test_preparation_normalises_pixels_between_0_and_1(random_images):
    images = random_images(2, 3, 6, 6)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    prepared = Preparation("clean", None, mean, std)(images)
    expected = (images.double() / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    torch.testing.assert_close(prepared, expected.float(), atol=1e-6, rtol=1e-6)


def test_preparation_fits_channels(random_images):
    colour, grey = random_images(2, 3, 6, 6), random_images(2, 1, 6, 6)
    to_colour = Preparation("clean", None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    to_grey = Preparation("clean", None, (0.5,), (0.5,))
    assert torch.equal(to_colour(grey), to_colour(grey.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(to_grey(colour), to_colour(colour).mean(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bicubic", 8, (0.5,), (0.5,)), "resize is bicubic; it can be tensorflow, clean, bilinear"),
        (("clean", 0, (0.5,), (0.5,)), "image_size is 0"),
        (("clean", 8, (0.5, 0.5), (0.5, 0.5)), "2 means"),
        (("clean", 8, (0.5,), (0.5,) * 3), "3 standard deviations"),
        (("clean", 8, (0.5,), (0.0,)), r"std is \[0.0\]"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preparation(*arguments)
