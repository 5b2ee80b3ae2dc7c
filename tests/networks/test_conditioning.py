"""Every way for labels to reach a generator, in every generator that takes one, against its equation."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from ganforge.networks import dcgan, sagan, sngan
from ganforge.networks.conditioning.adaptive_instance_norm import InstanceNormConditioning
from ganforge.networks.conditioning.concatenation import Concatenation
from ganforge.networks.conditioning.conditional_batch_norm import BatchNormConditioning
from ganforge.networks.layers.instance_norm import AdaptiveInstanceNorm

CONF = Path(__file__).parents[2] / "conf"
WAYS = sorted((CONF / "conditioning").glob("*.yaml"))
LATENT_DIM, CLASSES, BATCH = 7, 3, 6
every_way = pytest.mark.parametrize("path", WAYS, ids=lambda path: path.stem)
every_generator = pytest.mark.parametrize(
    "module", [dcgan, sngan, sagan], ids=lambda m: m.__name__.split(".")[-1]
)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        print(f"seed {torch.seed()}")
        yield


def way(path: Path) -> tuple[Any, dict[str, Any]]:
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    assert config.pop("_partial_") is True
    return getattr(importlib.import_module(module), name), config


def generator(module: Any, path: Path, classes: int = CLASSES) -> nn.Module:
    kind, settings = way(path)
    made: nn.Module = module.Generator(
        LATENT_DIM, 32, 3, classes, width=8, conditioning=lambda dim, k: kind(dim, k, **settings)
    )
    return made


@every_way
def test_the_configuration_repeats_the_defaults(path: Path) -> None:
    kind, settings = way(path)
    parameters = list(inspect.signature(kind).parameters.values())[2:]
    assert settings == {parameter.name: parameter.default for parameter in parameters}


@every_way
@every_generator
def test_labels_change_the_image_and_all_parameters_learn(module: Any, path: Path) -> None:
    network = generator(module, path)
    with torch.no_grad():
        for parameter in network.parameters():  # some are 0, or the same for each class, at first
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.double()
    labels = torch.arange(BATCH) % CLASSES
    z = torch.randn(BATCH + 1, LATENT_DIM, dtype=torch.float64)
    z = torch.cat([z[:1].expand(BATCH, -1), z[1:]])  # the others for batch norm
    images = network(z, labels.repeat(2))
    assert images.shape == (2 * BATCH, 3, 32, 32)
    torch.testing.assert_close(images[0], images[CLASSES])
    assert (images[0] - images[1]).abs().max() > 1e-4
    assert (images[BATCH] - images[BATCH + 1]).abs().max() > 1e-4
    (images * torch.randn_like(images)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # A norm takes the mean of a map away, and with it what the bias of a convolution before it adds.
        assert (name.startswith("blocks") and name.endswith("bias")) or parameter.grad.abs().max() > 1e-9, (
            name
        )


@every_way
@every_generator
def test_without_classes_labels_say_nothing(module: Any, path: Path) -> None:
    network = generator(module, path, classes=0).eval()
    z = torch.randn(2, LATENT_DIM)
    assert (
        network(z, torch.zeros(2, dtype=torch.int64)) == network(z, torch.ones(2, dtype=torch.int64))
    ).all()
    assert (network(z, torch.zeros(2, dtype=torch.int64))[0] != network(z[[1, 0]], torch.zeros(2))[0]).any()


@pytest.mark.parametrize(
    ("module", "own"),
    [(dcgan, Concatenation), (sngan, BatchNormConditioning), (sagan, BatchNormConditioning)],
)
def test_a_model_has_a_way_of_its_own(module: Any, own: Any) -> None:
    networks = []
    for conditioning in (None, own):
        torch.manual_seed(0)
        networks.append(module.Generator(LATENT_DIM, 32, 3, CLASSES, width=2, conditioning=conditioning))
    first, second = (network.state_dict() for network in networks)
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_adaptive_instance_norm_is_its_equation() -> None:
    norm = AdaptiveInstanceNorm(4, 5).double()
    x = 3 * torch.randn(BATCH, 4, 3, 2, dtype=torch.float64) + 1
    w = torch.randn(BATCH, 5, dtype=torch.float64)
    out = norm(x, w)
    for sample in range(BATCH):
        for channel in range(4):
            plane = x[sample, channel]
            scale = 1 + norm.gain.weight[channel] @ w[sample]
            shift = norm.bias.weight[channel] @ w[sample] + norm.bias.bias[channel]
            deviation = ((plane - plane.mean()) ** 2).mean().add(1e-5).sqrt()
            torch.testing.assert_close(
                out[sample, channel], scale * (plane - plane.mean()) / deviation + shift
            )


def test_batch_norm_has_a_gain_and_a_bias_a_class() -> None:
    norm = BatchNormConditioning(LATENT_DIM, CLASSES).norm(4).double()
    plain = nn.BatchNorm2d(4, affine=False).double()
    gain, bias = (torch.randn(CLASSES, 4, dtype=torch.float64) for _ in range(2))
    norm.load_state_dict({**norm.state_dict(), "gain.weight": gain, "bias.weight": bias})
    x, labels = torch.randn(BATCH, 4, 3, 3, dtype=torch.float64), torch.randint(CLASSES, (BATCH,))
    expected = gain[labels][..., None, None] * plain(x) + bias[labels][..., None, None]
    torch.testing.assert_close(norm(x, labels), expected)


def test_what_the_first_layer_and_the_norms_take() -> None:
    z, labels = torch.randn(BATCH, LATENT_DIM), torch.arange(BATCH) % CLASSES
    beside = Concatenation(LATENT_DIM, CLASSES, embedding_dim=2)
    code, _ = beside(z, labels)
    assert code.shape == (BATCH, beside.features) == (BATCH, LATENT_DIM + 2)
    assert beside.embedding is not None
    assert (code == torch.cat([z, beside.embedding.weight[labels]], dim=1)).all()
    styled = InstanceNormConditioning(LATENT_DIM, CLASSES, embedding_dim=2)
    code, style = styled(z, labels)
    assert styled.features == LATENT_DIM
    assert (code == z).all()
    assert isinstance(styled.embedding, nn.Embedding)
    assert (style == torch.cat([z, styled.embedding.weight[labels]], dim=1)).all()


@every_way
def test_what_follows_the_norms_stays_in_bfloat16(path: Path) -> None:
    kind, settings = way(path)
    conditioning = kind(LATENT_DIM, CLASSES, **settings)
    norm = conditioning.norm(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, condition = conditioning(torch.randn(2, LATENT_DIM), torch.arange(2))
        assert norm(torch.randn(2, 4, 3, 3).bfloat16(), condition).dtype == torch.bfloat16
