"""The blocks of every discriminator are found in the order in which images pass them, and can be frozen."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import nn

from ganforge.networks import dcgan, sngan
from ganforge.networks.freezing import blocks, freeze_

CONF = Path(__file__).parents[2] / "conf" / "model"
MODELS = sorted(path.stem for path in CONF.glob("*.yaml"))


def discriminator(model: str) -> tuple[nn.Module, int]:
    """A small one, and the image size that it takes."""
    target: Any = get_class(yaml.safe_load((CONF / f"{model}.yaml").read_text())["discriminator"]["_target_"])
    for size in (8, 16, 32, 64, 128):
        try:
            return target(image_size=size, channels=1, num_classes=2, width=8), size
        except ValueError:
            continue
    raise AssertionError(f"{model} takes no images of a usual size")


@pytest.mark.parametrize("model", MODELS)
def test_blocks_are_in_the_order_of_the_forward_pass(model: str) -> None:
    network, size = discriminator(model)
    found = blocks(network)
    assert len(found) >= 3
    weights = [p for block in found for name in block for p in network.get_submodule(name).parameters()]
    assert {id(p) for p in weights} == {id(p) for p in network.parameters()}
    assert len(weights) == len({id(p) for p in weights})
    called: list[str] = []
    for name in (name for block in found for name in block):
        note = lambda module, inputs, name=name: called.append(name)  # noqa: E731
        network.get_submodule(name).register_forward_pre_hook(note)
    network.eval()(torch.randn(4, 1, size, size), torch.randint(2, (4,)))
    first_calls = list(dict.fromkeys(called))
    order = [name for block in found for name in block if name in first_calls]
    assert first_calls == order
    assert first_calls[0] == found[0][0]


@pytest.mark.parametrize("model", MODELS)
def test_a_frozen_discriminator_learns_with_the_rest_and_passes_gradients_on(model: str) -> None:
    network, size = discriminator(model)
    n = random.randrange(1, len(blocks(network)))
    print(f"{n} of {blocks(network)}")
    frozen = {id(p) for module in freeze_(network, n) for p in module.parameters()}
    images = torch.randn(4, 1, size, size, requires_grad=True)
    network(images, torch.randint(2, (4,))).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all((p.grad is None) for p in network.parameters() if id(p) in frozen)
    assert any(p.grad is not None for p in network.parameters() if id(p) not in frozen)
    assert frozen


def test_a_normalisation_belongs_to_the_block_before() -> None:
    network = dcgan.Discriminator(image_size=32, channels=1, width=4)
    assert blocks(network) == [["layers.0"], ["layers.2", "layers.3"], ["layers.5", "layers.6"], ["head"]]
    assert [type(module).__name__ for module in freeze_(network, 2)] == ["Conv2d", "Conv2d", "BatchNorm2d"]


def test_modules_are_frozen_by_name() -> None:
    network = sngan.Discriminator(image_size=32, channels=1, width=4)
    (module,) = freeze_(network, ["blocks.1"])
    assert module is network.blocks[1]
    assert not any(p.requires_grad for p in module.parameters())
    assert all(p.requires_grad for p in network.blocks[0].parameters())
    assert freeze_(network, 0) == freeze_(network, []) == []


@pytest.mark.parametrize("what", [-1, 5, 99, ["layers.9"], ["layer"], ["layers", "head"]])
def test_what_cannot_be_frozen_is_refused(what: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be frozen|no part|nothing left"):
        freeze_(dcgan.Discriminator(image_size=32, channels=1, width=4), what)
