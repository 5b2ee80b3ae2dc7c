"""Dropout in discriminators: off by default and in evaluation, on in training, and repeated by a seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganforge.networks import dcgan, mlp

MAKERS: list[Callable[[float], nn.Module]] = [
    lambda p: dcgan.Discriminator(image_size=16, channels=1, num_classes=3, width=8, dropout=p),
    lambda p: mlp.Discriminator(image_size=16, channels=1, num_classes=3, width=64, dropout=p),
]


@pytest.mark.parametrize("make", MAKERS, ids=["dcgan", "mlp"])
def test_dropout_acts_in_training_only_and_is_drawn_from_the_seed(make: Callable[[float], nn.Module]) -> None:
    plain = make(0.0)
    assert not any(isinstance(module, nn.Dropout) for module in plain.modules())
    dropped = make(0.5)
    dropped.load_state_dict(plain.state_dict())
    images, labels = torch.randn(6, 1, 16, 16), torch.randint(3, (6,))
    assert torch.equal(dropped.eval()(images, labels), plain.eval()(images, labels))

    def trained(seed: int) -> Tensor:
        torch.manual_seed(seed)
        logits: Tensor = dropped.train()(images, labels)
        return logits

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
    shares = [float((layer(torch.ones(10_000)) == 0).float().mean()) for layer in dropped.modules()
              if isinstance(layer, nn.Dropout)]  # fmt: skip
    assert len(shares) >= 2
    assert all(abs(share - 0.5) < 0.03 for share in shares)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout"):
        mlp.Discriminator(image_size=8, channels=1, dropout=1.5)
