"""R3GAN's networks: published sizes, and blocks that are the identity at first."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks import r3gan


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def test_published_sizes_for_ffhq_at_256() -> None:
    """Configuration E of the paper's ablation: 23.058 M and 23.010 M."""
    with torch.device("meta"):
        assert round(millions(r3gan.Generator(64, 256, 3)), 3) == 23.058
        assert round(millions(r3gan.Discriminator(256, 3)), 3) == 23.010


def test_published_sizes_for_cifar10_with_and_without_labels() -> None:
    """The paper's table 9; without labels those of its stacked MNIST, which has as many channels."""
    with torch.device("meta"):
        for num_classes, generator, discriminator in ((10, 20.78, 21.28), (0, 20.73, 20.68)):
            assert round(millions(r3gan.Generator(64, 32, 3, num_classes)), 2) == generator
            assert round(millions(r3gan.Discriminator(32, 3, num_classes)), 2) == discriminator


def test_published_sizes_for_imagenet_at_32_and_64() -> None:
    with torch.device("meta"):
        for size, generator, discriminator in ((32, 82.91, 86.55), (64, 103.57, 107.21)):
            wide = {"num_classes": 1000, "width": 1536, "max_width": 1536, "group_width": 32}
            assert round(millions(r3gan.Generator(64, size, 3, **wide)), 2) == generator
            assert round(millions(r3gan.Discriminator(size, 3, **wide)), 2) == discriminator


def test_a_label_meets_a_linear_map_of_the_features() -> None:
    head = r3gan.LabelProduct(5, 3)
    features, labels = torch.randn(4, 5), torch.tensor([0, 2, 1, 2])
    assert head.label_embedding is not None
    expected = torch.einsum("bd,de,be->b", head.label_embedding.weight[labels], head.linear.weight, features)
    torch.testing.assert_close(head(features, labels), expected)
    plain = r3gan.LabelProduct(5, 0)
    torch.testing.assert_close(plain(features, labels), features @ plain.linear.weight[0])


def test_all_levels_of_cifar10_are_as_wide() -> None:
    assert r3gan.widths_of_levels(32, None, 768) == {4: 768, 8: 768, 16: 768, 32: 768}
    assert r3gan.widths_of_levels(256, None, 768)[256] == 96


@pytest.mark.parametrize("channels", [16, 48])
def test_a_block_is_the_identity_at_first_and_its_convolutions_after(channels: int) -> None:
    block = r3gan.ResidualBlock(channels, blocks=14)
    x = torch.randn(2, channels, 6, 6)
    assert torch.equal(block(x), x)
    assert block.conv.groups == 2 * channels // 16
    nn.init.normal_(block.reduce.weight)
    h = F.leaky_relu(F.conv2d(x, block.expand.weight, block.expand.bias), 0.2)
    halves = zip(h.split(16, dim=1), block.conv.weight.split(16), strict=True)  # groups of 16 channels
    h = torch.cat([F.conv2d(part, weight, padding=1) for part, weight in halves], dim=1)
    expected = x + F.conv2d(F.leaky_relu(h, 0.2), block.reduce.weight)
    torch.testing.assert_close(block(x), expected)


def test_initial_weights_are_fix_ups() -> None:
    generator = r3gan.Generator(64, 64, 3, width=32)
    blocks = [layer for layer in generator.layers if isinstance(layer, r3gan.ResidualBlock)]
    assert len(blocks) == 2 * 5
    for block in blocks:
        for conv in (block.expand, block.conv):
            inputs = conv.weight[0].numel()
            expected = 10 ** (-1 / 4) * (2 / 1.04 / inputs) ** 0.5
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert not block.reduce.weight.any()


def test_features_keep_their_size_from_end_to_end() -> None:
    """Without norms this rests on the initialization alone; twice as many levels change it by little."""

    def sizes(image_size: int) -> tuple[float, float]:
        with torch.no_grad():
            labels = torch.zeros(16, dtype=torch.int64)
            images: Tensor = r3gan.Generator(64, image_size, 3, width=32, max_width=64)(
                torch.randn(16, 64), labels
            )
            discriminator = r3gan.Discriminator(image_size, 3, width=32, max_width=64)
            logits = discriminator(torch.randn(16, 3, image_size, image_size), labels)
        return images.std().item(), logits.std().item()

    for image_size in (16, 64):
        images, logits = sizes(image_size)
        assert 0.05 < images < 2
        assert 0.001 < logits < 2


def test_labels_enter_the_generator_beside_z() -> None:
    generator = r3gan.Generator(64, 16, 3, num_classes=7, width=8)
    assert generator.linear.in_features == 128
    assert generator.embedding is not None
    assert generator.embedding.num_embeddings == 7
