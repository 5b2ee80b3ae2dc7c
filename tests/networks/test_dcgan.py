"""DCGAN against the published sizes, the paper's initialization and the plain stack of layers."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from ganforge.networks import dcgan


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_of_the_well_known_64x64_pair() -> None:
    """What PyTorch's DCGAN example (examples/dcgan, ngf = ndf = 64, nz = 100) prints."""
    assert count(dcgan.Generator(100, 64, 3, width=64)) == 3_576_704
    assert count(dcgan.Discriminator(64, 3, width=64, norm="batch")) == 2_765_568


def test_size_of_the_papers_generator() -> None:
    """Figure 1 of Radford et al. 2015: 100 -> 1024 of 4x4 -> 512 -> 256 -> 128 -> 3 of 64x64, no biases."""
    projection = 100 * 1024 * 4 * 4
    convolutions = 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    batch_norms = 2 * (1024 + 512 + 256 + 128)
    assert count(dcgan.Generator(100, 64, 3, width=128)) == projection + convolutions + batch_norms


def test_sizes_of_the_8x8_pair() -> None:
    """4x4 -> 8x8, and 8x8 -> 4x4 -> 2x2."""
    assert count(dcgan.Generator(100, 8, 1, width=64)) == 100 * 64 * 16 + 2 * 64 + 16 * 64 * 1
    discriminator = 16 * 1 * 64 + 16 * 64 * 128 + 2 * 128 + 128 * 2 * 2
    assert count(dcgan.Discriminator(8, 1, width=64)) == discriminator


@pytest.mark.parametrize("image_size", dcgan.IMAGE_SIZES)
def test_levels_halve_the_image_down_to_4x4(image_size: int) -> None:
    widths = dcgan.level_widths(image_size, 3)
    assert image_size == 4 * 2 ** len(widths)
    assert widths[0] == 3
    assert all(after == 2 * before for before, after in pairwise(widths))


def test_same_function_as_the_stack_of_transposed_convolutions() -> None:
    """The generator of PyTorch's DCGAN example, which projects by a transposed convolution of a 1x1 map."""
    generator = dcgan.Generator(11, 16, 3, width=4)
    first, second = generator.blocks
    project = nn.ConvTranspose2d(11, 8, kernel_size=4, bias=False)
    with torch.no_grad():
        project.weight.copy_(generator.linear.weight.t().reshape(11, 8, 4, 4))
    blocks = [
        nn.Sequential(block.norm.norm, nn.ReLU(), block.conv)  # type: ignore[union-attr]
        for block in (first, second)
    ]
    reference = nn.Sequential(project, *blocks, nn.Tanh())
    z = torch.randn(6, 11)
    torch.testing.assert_close(
        generator(z, torch.zeros(6, dtype=torch.int64)), reference(z[:, :, None, None])
    )


@pytest.mark.parametrize("image_size", [8, 64])
def test_without_norm_the_features_keep_their_size(image_size: int) -> None:
    """He's initialization: the logits of noise of size 1 are of size 1, however deep the stack."""
    labels = torch.zeros(64, dtype=torch.int64)
    images = torch.randn(64, 3, image_size, image_size)
    deviations = [
        dcgan.Discriminator(image_size, 3, width=16, norm="none")(images, labels).std() for _ in range(8)
    ]
    assert 0.3 < torch.stack(deviations).mean().item() < 2


def test_the_papers_initialization() -> None:
    for network in (
        dcgan.Generator(100, 32, 3, width=32),
        dcgan.Discriminator(32, 3, width=32, norm="batch"),
    ):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
                assert abs(layer.weight.mean().item()) < 0.002
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert (layer.bias == 0).all()
