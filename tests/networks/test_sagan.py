"""SAGAN: self-attention against its equations, sizes against a count by hand, norms by singular values."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganforge.networks import sagan, sngan
from ganforge.networks.layers.attention import SelfAttention


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def plain(in_channels: int, out_channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


def test_attention_is_the_papers_sum_over_places() -> None:
    seed = torch.seed()
    print(f"seed {seed}")
    layer = SelfAttention(16, plain).double()
    x = torch.randn(2, 16, 6, 4, dtype=torch.float64)
    assert torch.equal(layer(x), x)  # γ = 0
    nn.init.constant_(layer.gamma, 0.7)

    def at_places(conv: nn.Module, pooled: bool) -> Tensor:
        features = conv(x)
        if pooled:
            features = features.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
        return features.flatten(2).mT  # (B, places, channels)

    queries, keys, values = (
        at_places(conv, pooled)
        for conv, pooled in ((layer.query, False), (layer.key, True), (layer.value, True))
    )
    assert isinstance(layer.out, nn.Conv2d)
    expected = x.clone()
    for image in range(2):
        for place in range(24):
            weights = torch.exp(keys[image] @ queries[image, place])
            weights = weights / weights.sum()
            attended = layer.out.weight[:, :, 0, 0] @ (weights @ values[image])
            expected[image, :, place // 4, place % 4] += 0.7 * attended
    torch.testing.assert_close(layer(x), expected)


def attention(channels: int) -> int:
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1


@pytest.mark.parametrize("image_size", [32, 48, 64, 128])
def test_the_generator_is_sngans_with_attention(image_size: int) -> None:
    arch = sngan.ARCHITECTURES[image_size]
    width = 8
    base = sngan.Generator(128, image_size, 3, 5, width)
    network = sagan.Generator(128, image_size, 3, 5, width)
    assert network.attended is not None
    attended = width * arch.generator_levels[network.attended + 1]
    assert count(network) == count(base) + attention(attended)
    without = sagan.Generator(128, image_size, 3, 5, width, attention=0)
    assert count(without) == count(base)


def test_the_papers_size_at_128(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention follows the 32x32 feature maps, of 256 channels in the generator and 128 in the discriminator."""

    def conv(i: int, o: int, k: int) -> int:
        return k * k * i * o + o

    def block(i: int, o: int, shortcut: bool = True) -> int:
        return conv(i, o, 3) + conv(o, o, 3) + shortcut * conv(i, o, 1)

    levels = [1024, 1024, 512, 256, 128, 64]
    norms = 1000 * sum(2 * (i + o) for i, o in pairwise(levels))
    blocks = sum(block(i, o) for i, o in pairwise(levels))
    generator = 129 * 16 * 1024 + blocks + norms + attention(256) + 2 * 64 + conv(64, 3, 3)
    levels = [3, 64, 128, 256, 512, 1024]
    blocks = sum(block(i, o) for i, o in pairwise(levels))
    discriminator = blocks + block(1024, 1024, False) + attention(128) + 1025 + 1000 * 1024
    monkeypatch.setattr(sngan, "spectral_norm", lambda layer: layer)  # slow on the meta device, no parameters
    with torch.device("meta"):
        assert count(sagan.Generator(128, 128, 3, 1000)) == generator
        assert count(sagan.Discriminator(128, 3, 1000)) == discriminator


def test_attention_follows_the_feature_map_that_is_asked_for() -> None:
    seen: list[int] = []
    for size, asked, expected in ((64, None, 32), (32, None, 16), (48, None, 24), (64, 16, 16), (64, 8, 8)):
        for network in (
            sagan.Generator(4, size, 3, width=2, attention=asked),
            sagan.Discriminator(size, 3, width=2, attention=asked),
        ):
            seen.clear()
            for layer in network.modules():
                if isinstance(layer, SelfAttention):
                    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
            labels = torch.zeros(2, dtype=torch.int64)
            network(
                torch.randn(2, 4) if hasattr(network, "latent_dim") else torch.randn(2, 3, size, size), labels
            )
            assert seen == [expected]


@pytest.mark.parametrize("network", [sagan.Generator, sagan.Discriminator])
def test_a_feature_map_that_is_not_there(network: type[nn.Module]) -> None:
    arguments = (4, 64, 3) if network is sagan.Generator else (64, 3)
    with pytest.raises(ValueError, match=r"attention=20: .*16, 32"):
        network(*arguments, width=2, attention=20)


def test_spectral_norm_is_one_in_both_players() -> None:
    for network in (sagan.Generator(8, 32, 3, 5, 8), sagan.Discriminator(32, 3, 5, 8)):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert layers
        for layer in layers:
            assert is_parametrized(layer, "weight")
            for _ in range(200):
                layer.weight  # noqa: B018  (each look in training mode is one power iteration)
        network.eval()
        for layer in layers:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-2)
