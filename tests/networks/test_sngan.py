"""SNGAN against the papers' tables, an exact singular value decomposition and its parts' definitions."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganforge.networks import sngan
from ganforge.networks.heads.projection import Projection
from ganforge.networks.layers.batch_norm import ConditionalBatchNorm
from ganforge.networks.layers.residual import DownBlock, UpBlock


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def conv(in_channels: int, out_channels: int, kernel: int = 3) -> int:
    return kernel * kernel * in_channels * out_channels + out_channels


def up(in_channels: int, out_channels: int, classes: int = 1) -> int:
    norms = 2 * classes * (in_channels + out_channels)
    residual = conv(in_channels, out_channels) + conv(out_channels, out_channels)
    return norms + residual + conv(in_channels, out_channels, 1)


def first(out_channels: int) -> int:
    return conv(3, out_channels) + conv(out_channels, out_channels) + conv(3, out_channels, 1)


def block(in_channels: int, out_channels: int, *, shortcut: bool = True) -> int:
    learned = conv(in_channels, out_channels, 1) if shortcut else 0
    return conv(in_channels, in_channels) + conv(in_channels, out_channels) + learned


# Layer by layer from the tables; no call of the networks' own arithmetic.
GENERATORS = {
    32: (128 + 1) * 4 * 4 * 256 + 3 * up(256, 256) + 2 * 256 + conv(256, 3),
    48: (128 + 1) * 6 * 6 * 512 + up(512, 256) + up(256, 128) + up(128, 64) + 2 * 64 + conv(64, 3),
    64: (128 + 1) * 4 * 4 * 1024
    + up(1024, 512)
    + up(512, 256)
    + up(256, 128)
    + up(128, 64)
    + 2 * 64
    + conv(64, 3),
    128: (128 + 1) * 4 * 4 * 1024
    + up(1024, 1024)
    + up(1024, 512)
    + up(512, 256)
    + up(256, 128)
    + up(128, 64)
    + 2 * 64
    + conv(64, 3),
}
NARROWING = first(64) + block(64, 128) + block(128, 256) + block(256, 512) + block(512, 1024)
DISCRIMINATORS = {
    32: first(128) + block(128, 128) + 2 * block(128, 128, shortcut=False) + (128 + 1),
    48: NARROWING + (1024 + 1),
    64: NARROWING + (1024 + 1),
    128: NARROWING + block(1024, 1024, shortcut=False) + (1024 + 1),
}


@pytest.mark.parametrize("image_size", [32, 48, 64, 128])
def test_sizes_of_the_papers_tables(image_size: int) -> None:
    with torch.device("meta"):
        generator = sngan.Generator(128, image_size, 3)
    assert count(generator) == GENERATORS[image_size]
    assert count(sngan.Discriminator(image_size, 3)) == DISCRIMINATORS[image_size]


def test_sizes_published_for_cifar10() -> None:
    assert count(sngan.Generator(128, 32, 3)) == 4_276_739
    assert count(sngan.Discriminator(32, 3)) == 1_053_825


def test_classes_add_gains_biases_and_one_embedding() -> None:
    classes = 10
    generator = (128 + 1) * 4 * 4 * 256 + 3 * up(256, 256, classes) + 2 * 256 + conv(256, 3)
    assert count(sngan.Generator(128, 32, 3, classes)) == generator
    assert count(sngan.Discriminator(32, 3, classes)) == DISCRIMINATORS[32] + classes * 128


@pytest.mark.parametrize(("image_size", "factor"), [(32, 4), (48, 4), (64, 16), (128, 16)])
def test_width_scales_every_level(image_size: int, factor: int) -> None:
    arch = sngan.ARCHITECTURES[image_size]
    small = sngan.Discriminator(image_size, 3, width=arch.discriminator_width // factor)
    paper = sngan.Discriminator(image_size, 3)
    for scaled, full in zip(small.parameters(), paper.parameters(), strict=True):
        for have, want in zip(scaled.shape, full.shape, strict=True):
            assert have in (want, want // factor)
    assert count(small) < count(paper) / (factor * factor / 2)


def weighted(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]


def test_every_layer_of_the_discriminator_and_none_of_the_generator_is_normalized() -> None:
    discriminator = sngan.Discriminator(32, 3, num_classes=5, width=8)
    assert all(is_parametrized(layer, "weight") for layer in weighted(discriminator))
    assert len(weighted(discriminator)) == 4 * 2 + 2 + 2
    assert not any(is_parametrized(layer) for layer in sngan.Generator(8, 32, 3, 5, width=8).modules())


def test_spectral_norm_is_one_by_singular_values() -> None:
    discriminator = sngan.Discriminator(32, 3, num_classes=5, width=8)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.copy_(torch.randn_like(parameter))
            parameter[0] *= 3  # one singular value well above the next: iterations take few steps to it
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 3])
    for _ in range(300):
        for layer in weighted(discriminator):
            layer.weight  # noqa: B018  (each look in training mode is one power iteration)
    discriminator.eval()
    before = discriminator(images, labels)
    for layer in weighted(discriminator):
        assert isinstance(layer.weight, Tensor)
        sigma = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
        assert sigma == pytest.approx(1, abs=1e-3)
    assert torch.equal(discriminator(images, labels), before)  # evaluation leaves the vectors alone


def test_a_fresh_discriminator_is_normalized_already() -> None:
    """The vectors are made after the weights are initialized, so that they belong to them."""
    for layer in weighted(sngan.Discriminator(32, 3, num_classes=5, width=32).eval()):
        assert isinstance(layer.weight, Tensor)
        sigma = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
        assert sigma == pytest.approx(1, abs=0.2)


def test_two_passes_give_the_gradient_of_each() -> None:
    """One backward through D(real) and D(fake) is the sum of both, though the vectors moved in between."""
    discriminator = sngan.Discriminator(32, 3, width=4).double()
    for layer in weighted(discriminator):  # where iterations end: how many it takes is a matter of chance
        norm = layer.parametrizations.weight[0]  # type: ignore[union-attr,index]
        u, _, v = torch.linalg.svd(layer.parametrizations.weight.original.detach().flatten(1))  # type: ignore[union-attr]
        norm._u.copy_(u[:, 0])
        norm._v.copy_(v[0])
    labels = torch.zeros(2, dtype=torch.int64)
    real, fake = torch.randn(2, 2, 3, 32, 32, dtype=torch.float64)
    parameters = list(discriminator.parameters())
    together = torch.autograd.grad(
        discriminator(real, labels).sum() - discriminator(fake, labels).sum(),
        parameters,
        materialize_grads=True,
    )
    apart = [
        torch.autograd.grad(discriminator(images, labels).sum(), parameters, materialize_grads=True)
        for images in (real, fake)
    ]
    for total, of_real, of_fake in zip(together, *apart, strict=True):
        torch.testing.assert_close(total, of_real - of_fake, atol=1e-6, rtol=1e-5)


def test_conditional_batch_norm_is_batch_norm_with_each_labels_gain_and_bias() -> None:
    norm = ConditionalBatchNorm(6, num_classes=3)
    features, labels = torch.randn(8, 6, 5, 5) * 3 + 1, torch.arange(8) % 3
    torch.testing.assert_close(norm(features, labels), nn.BatchNorm2d(6)(features))
    assert norm.gain is not None
    assert norm.bias is not None
    nn.init.normal_(norm.gain.weight)
    nn.init.normal_(norm.bias.weight)
    out = norm(features, labels)
    for index, label in enumerate(labels):
        plain = F.batch_norm(
            features, None, None, norm.gain.weight[label], norm.bias.weight[label], training=True
        )
        torch.testing.assert_close(out[index], plain[index])


def test_conditional_batch_norm_stays_in_the_precision_of_its_features() -> None:
    """With a float32 gain, all of the generator that follows would leave bfloat16 under autocast."""
    norm = ConditionalBatchNorm(8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(4, 8, 5, 5).bfloat16(), torch.tensor([0, 1, 2, 1])).dtype == torch.bfloat16
    assert norm(torch.randn(4, 8, 5, 5), torch.tensor([0, 1, 2, 1])).dtype == torch.float32


def test_blocks_are_the_authors_in_another_order() -> None:
    """The authors' order: up-sample before the 1x1 convolution, pool after it."""
    x, labels = torch.randn(3, 4, 8, 8), torch.zeros(3, dtype=torch.int64)
    norm = functools.partial(ConditionalBatchNorm, num_classes=0)
    upwards = UpBlock(4, 6, sngan.conv, norm)
    h = upwards.conv1(F.interpolate(F.relu(upwards.norm1(x, labels)), scale_factor=2))
    h = upwards.conv2(F.relu(upwards.norm2(h, labels)))
    authors = h + upwards.shortcut(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(upwards(x, labels), authors)

    downwards = DownBlock(4, 6, sngan.normalized_conv, downsample=True, first=False, wide=False).eval()
    h = downwards.conv2(F.relu(downwards.conv1(F.relu(x))))
    authors = F.avg_pool2d(h + downwards.shortcut(x), 2)
    torch.testing.assert_close(downwards(x), authors)


def test_projection() -> None:
    """logit(x, y) = linear(phi(x)) + <embedding(y), phi(x)>, equation 3 of Miyato & Koyama 2018."""
    discriminator = sngan.Discriminator(32, 3, num_classes=4, width=6).eval()
    images, labels = torch.randn(5, 3, 32, 32), torch.randint(4, (5,))
    features = F.relu(discriminator.blocks(images)).sum(dim=(2, 3))
    head = discriminator.head
    assert isinstance(head, Projection)
    assert head.label_embedding is not None
    psi, bias = head.linear.weight, head.linear.bias
    assert isinstance(psi, Tensor)
    assert isinstance(bias, Tensor)
    embedding = head.label_embedding.weight
    assert isinstance(embedding, Tensor)
    by_hand = [psi[0] @ phi + bias[0] + embedding[y] @ phi for phi, y in zip(features, labels, strict=True)]
    torch.testing.assert_close(discriminator(images, labels), torch.stack(by_hand))
