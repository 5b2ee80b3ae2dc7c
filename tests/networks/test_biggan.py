"""BigGAN and BigGAN-deep: published sizes, where z and labels enter, initial weights and norms."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganforge.networks import biggan, biggan_deep
from ganforge.networks.layers.attention import SelfAttention
from ganforge.networks.layers.batch_norm import ModulatedBatchNorm


def millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


@pytest.fixture
def unnormalized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spectral norm has no parameters, and its power iterations are slow on the meta device."""
    monkeypatch.setattr(biggan, "spectral_norm", lambda layer: layer)


@pytest.mark.usefixtures("unnormalized")
def test_published_sizes_with_imagenets_classes_at_128() -> None:
    with torch.device("meta"):
        assert round(millions(biggan.Generator(None, 128, 3, 1000)), 1) == 70.4
        assert round(millions(biggan.Discriminator(128, 3, 1000)), 1) == 88.0
        assert round(millions(biggan_deep.Discriminator(128, 3, 1000)), 1) == 34.6


@pytest.mark.usefixtures("unnormalized")
@pytest.mark.parametrize(("image_size", "published"), [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_published_sizes_of_the_deep_generators(image_size: int, published: float) -> None:
    """The released ones compute 128 channels in the last convolution, of which 125 are thrown away."""
    with torch.device("meta"):
        generator = biggan_deep.Generator(128, image_size, 3, 1000)
    unused = 125 * (9 * 128 + 1) / 1e6
    assert round(millions(generator) + unused, 1) == published


@pytest.mark.parametrize(("image_size", "length"), [(32, 80), (64, 100), (128, 120), (256, 140), (512, 160)])
def test_the_papers_z_has_20_numbers_for_each_block(image_size: int, length: int) -> None:
    generator = biggan.Generator(None, image_size, 3, width=1)
    assert generator.latent_dim == length
    assert generator.pieces == [20] * (length // 20)


@pytest.mark.parametrize(("latent_dim", "pieces"), [(4, [1, 1, 1, 1]), (7, [4, 1, 1, 1]), (9, [3, 2, 2, 2])])
def test_z_is_cut_into_equal_pieces_after_the_first(latent_dim: int, pieces: list[int]) -> None:
    assert biggan.Generator(latent_dim, 32, 3, width=2).pieces == pieces


def test_a_z_that_is_too_short() -> None:
    with pytest.raises(ValueError, match=re.escape("latent_dim=3") + ".* 4 "):
        biggan.Generator(3, 32, 3, width=2)


def outputs_of_blocks(generator: biggan.Generator | biggan_deep.Generator, z: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda _, __, output: seen.append(output)) for b in generator.blocks]
    with torch.no_grad():
        generator(z, torch.tensor([0, 1, 2]))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("piece", [0, 1, 2, 3])
def test_each_piece_of_z_enters_at_its_block(piece: int) -> None:
    generator = biggan.Generator(12, 32, 3, num_classes=3, width=4).eval()
    z = torch.randn(3, 12)
    other = z.clone()
    other[:, 3 * piece : 3 * (piece + 1)] += 1
    pairs = zip(outputs_of_blocks(generator, z), outputs_of_blocks(generator, other), strict=True)
    same = [torch.equal(before, after) for before, after in pairs]
    first = max(0, piece - 1)  # piece 0 feeds the linear layer before block 0, piece 1 block 0
    assert same == [True] * first + [False] * (3 - first)


def test_all_of_z_enters_every_deep_block() -> None:
    generator = biggan_deep.Generator(12, 32, 3, num_classes=3, width=4).eval()
    nn.init.zeros_(generator.linear.parametrizations.weight.original)  # type: ignore[union-attr, arg-type]
    z = torch.randn(3, 12)
    for index in range(12):
        other = z.clone()
        other[:, index] += 1
        conditions = [
            layer.gain(torch.cat([v, generator.embedding(torch.tensor([0, 1, 2]))], 1))  # type: ignore[misc]
            for layer in generator.modules()
            if isinstance(layer, ModulatedBatchNorm)
            for v in (z, other)
        ]
        assert all(not torch.equal(a, b) for a, b in zip(conditions[::2], conditions[1::2], strict=True))


def test_the_label_has_one_embedding_for_all_blocks() -> None:
    for generator in (biggan.Generator(8, 32, 3, 5, 2), biggan_deep.Generator(8, 32, 3, 5, 2)):
        assert [m.num_embeddings for m in generator.modules() if isinstance(m, nn.Embedding)] == [5]


def test_modulated_batch_norm_is_batch_norm_scaled_and_shifted() -> None:
    norm = ModulatedBatchNorm(6, 3, lambda layer: layer)
    features, condition = torch.randn(8, 6, 5, 5) * 3 + 1, torch.randn(8, 3)
    normalized = nn.BatchNorm2d(6, affine=False)(features)
    gain, bias = condition @ norm.gain.weight.T, condition @ norm.bias.weight.T
    expected = normalized * (1 + gain)[:, :, None, None] + bias[:, :, None, None]
    torch.testing.assert_close(norm(features, condition), expected)


def test_deep_blocks_keep_their_input_but_for_channels() -> None:
    """With a residual branch of 0 a block drops the last channels, or adds new ones behind those it has."""
    x = torch.randn(2, 8, 4, 4)
    up = biggan_deep.UpBlock(8, 4, nn_norm, upsample=True).eval()
    down = biggan_deep.DownBlock(8, 12, downsample=True).eval()
    for block in (up, down):
        nn.init.zeros_(block.expand.weight)  # type: ignore[arg-type]
        block.expand = nn.Conv2d(block.expand.in_channels, block.expand.out_channels, 1)
        nn.init.zeros_(block.expand.weight)
        assert block.expand.bias is not None
        nn.init.zeros_(block.expand.bias)
    assert torch.equal(up(x, x), x[:, :4].repeat_interleave(2, 2).repeat_interleave(2, 3))
    pooled = nn.functional.avg_pool2d(x, 2)
    assert torch.equal(down(x)[:, :8], pooled)
    assert down(x).shape == (2, 12, 2, 2)


def nn_norm(channels: int) -> nn.Module:
    class Norm(nn.Module):
        def forward(self, features: Tensor, condition: Tensor) -> Tensor:
            return features

    return Norm()


@pytest.mark.parametrize("module", [biggan, biggan_deep])
@pytest.mark.parametrize(("image_size", "expected"), [(32, []), (64, [32]), (128, [64])])
def test_attention_follows_the_papers_feature_map(
    module: type[biggan], image_size: int, expected: list[int]
) -> None:
    generator = module.Generator(8, image_size, 3, width=2)
    discriminator = module.Discriminator(image_size, 3, width=2)
    labels = torch.zeros(2, dtype=torch.int64)
    for network, x in (
        (generator, torch.randn(2, 8)),
        (discriminator, torch.randn(2, 3, image_size, image_size)),
    ):
        seen: list[int] = []
        for layer in network.modules():
            if isinstance(layer, SelfAttention):
                layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].shape[2]))
        network(x, labels)
        assert seen == expected


@pytest.mark.parametrize("module", [biggan, biggan_deep])
def test_weights_start_orthogonal_and_normalized(module: type[biggan]) -> None:
    for network in (module.Generator(8, 32, 3, 5, 4), module.Discriminator(32, 3, 5, 4)):
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) or (
                isinstance(layer, nn.Embedding) and "head" in name
            ):
                assert is_parametrized(layer, "weight"), name
                weight = layer.parametrizations.weight.original.detach().flatten(1)  # type: ignore[union-attr]
                gram = weight @ weight.T if len(weight) < weight.shape[1] else weight.T @ weight
                torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)
