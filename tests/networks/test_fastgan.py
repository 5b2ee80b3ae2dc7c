"""FastGAN: skip-layer excitation against its equation, which maps excite which, and logits of windows."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks import fastgan
from ganforge.networks.heads.projection import Projection


def test_excitation_scales_channels_by_the_small_map() -> None:
    layer = fastgan.Excitation(6, 3).eval()
    low, high = torch.randn(2, 6, 8, 8), torch.randn(2, 3, 32, 32)
    _, wide, _, narrow, _ = layer.gate
    h = F.leaky_relu(F.conv2d(F.avg_pool2d(low, 2), wide.weight), 0.1)  # type: ignore[arg-type]
    gates = torch.sigmoid(F.conv2d(h, narrow.weight))  # type: ignore[arg-type]
    assert gates.shape == (2, 3, 1, 1)
    torch.testing.assert_close(layer(low, high), high * gates)


@pytest.mark.parametrize("image_size", [64, 256, 1024])
def test_maps_are_excited_by_those_16_times_smaller(image_size: int) -> None:
    generator = fastgan.Generator(4, image_size, 3, width=1).eval()
    pairs: list[tuple[int, int]] = []
    for layer in generator.excitations:
        layer.register_forward_pre_hook(lambda _, maps: pairs.append((maps[0].shape[2], maps[1].shape[2])))
    generator(torch.randn(2, 4), torch.zeros(2, dtype=torch.int64))
    assert pairs == [(high // 16, high) for high in (64, 128, 256, 512) if high <= image_size]


def test_channels_are_the_authors() -> None:
    with torch.device("meta"):
        generator = fastgan.Generator(256, 1024, 3)
    outputs = [level[-1].norm.num_features // 2 for level in generator.levels]  # type: ignore[index, union-attr]
    assert outputs == [512, 256, 128, 128, 64, 32, 16, 8]
    convolutions = [len(level) - 1 for level in generator.levels]  # type: ignore[arg-type]
    assert convolutions == [2, 1, 2, 1, 2, 1, 2, 1]


def test_a_logit_is_the_mean_of_those_of_5x5_windows() -> None:
    discriminator = fastgan.Discriminator(64, 3, width=2).eval()
    images, labels = torch.randn(3, 3, 64, 64), torch.zeros(3, dtype=torch.int64)
    last = discriminator.layers[:-2](images)
    assert last.shape[2:] == (8, 8)
    assert isinstance(discriminator.head, Projection)
    weight, bias = discriminator.head.linear.weight, discriminator.head.linear.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    windows = F.conv2d(last, weight.view(1, -1, 4, 4), bias)
    assert windows.shape == (3, 1, 5, 5)
    torch.testing.assert_close(discriminator(images, labels), windows.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize(("image_size", "strided"), [(64, 0), (256, 0), (512, 1), (1024, 2)])
def test_larger_images_are_first_halved_to_256(image_size: int, strided: int) -> None:
    discriminator = fastgan.Discriminator(image_size, 3, width=1)
    convolutions = [layer for layer in discriminator.layers if isinstance(layer, nn.Conv2d)]
    assert sum(layer.stride == (2, 2) for layer in convolutions) == strided
    blocks = [layer for layer in discriminator.layers if isinstance(layer, fastgan.DownBlock)]
    assert len(blocks) == min(image_size, 256).bit_length() - 4


def test_other_norms_than_batch_leave_images_apart() -> None:
    for norm in ("layer", "none"):
        network = fastgan.Discriminator(64, 3, width=2, norm=norm).eval()  # type: ignore[arg-type]
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
