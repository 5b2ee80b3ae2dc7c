"""The perceptrons against sizes counted by hand and a plain stack of layers."""

import pytest
import torch
from torch import nn

from ganforge.networks import mlp


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_sizes(depth: int) -> None:
    hidden = (depth - 1) * (16 * 16 + 16)
    assert count(mlp.Generator(8, 5, 3, width=16, depth=depth)) == (8 + 1) * 16 + hidden + (16 + 1) * 75
    assert count(mlp.Discriminator(5, 3, width=16, depth=depth)) == (75 + 1) * 16 + hidden + (16 + 1)
    with_norm = mlp.Discriminator(5, 3, width=16, depth=depth, norm="layer")
    assert count(with_norm) == (75 + 1) * 16 + hidden + (16 + 1) + depth * 2 * 16


def test_labels_join_the_latents_by_an_embedding() -> None:
    z, labels = torch.randn(6, 8), torch.arange(6) % 3
    generator = mlp.Generator(8, None, 2, 3)
    embedding = generator.label_embedding
    assert embedding is not None
    expected = generator.layers(torch.cat([z, embedding.weight[labels]], dim=1))
    torch.testing.assert_close(generator(z, labels), expected)
