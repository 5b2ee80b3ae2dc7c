"""What every pair of networks promises: shapes, range, gradients, labels, seeds, copies and saved states."""

import contextlib
import copy
import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ganforge.networks import dcgan, mlp, sngan
from ganforge.networks.layers.growing import Growing

CONF = Path(__file__).parents[2] / "conf" / "model"


def configuration(name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))


def module_of(name: str) -> ModuleType:
    return importlib.import_module(configuration(name)["generator"]["_target_"].rpartition(".")[0])


MODULES = {path.stem: module_of(path.stem) for path in sorted(CONF.glob("*.yaml"))}


@functools.cache
def sizes(name: str) -> list[int]:
    """The image sizes, of the usual ones, that the generator can make."""
    made = []
    for size in (8, 16, 28, 32, 48, 64, 128, 256, 512, 1024):
        with contextlib.suppress(ValueError):
            MODULES[name].Generator(16, size, 3, width=1)
            made.append(size)
    return made


SIZES: list[tuple[str, int | None]] = [
    ("mlp", None),
    *(("mlp", size) for size in (1, 8, 28)),
    *((name, size) for name in MODULES if name != "mlp" for size in sizes(name)),
]
PAIRS: list[tuple[str, int | None]] = [
    ("mlp", None),
    ("dcgan", 32),
    *((name, sizes(name)[0]) for name in MODULES),
]
LATENT_DIM = 9


@dataclass
class Pair:
    generator: nn.Module
    discriminator: nn.Module
    latents: Tensor
    labels: Tensor
    shape: tuple[int, ...]

    def generate(self) -> Tensor:
        with torch.random.fork_rng():  # what a network itself draws is the same each time
            torch.manual_seed(0)
            images: Tensor = self.generator(self.latents, self.labels)
        return images

    def judge(self, images: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(images, self.labels)
        return logits


def make(
    name: str, image_size: int | None, channels: int = 3, num_classes: int = 0, width: int = 4, batch: int = 5
) -> Pair:
    shape = (channels,) if image_size is None else (channels, image_size, image_size)
    generator = MODULES[name].Generator(LATENT_DIM, image_size, channels, num_classes, width)
    discriminator = MODULES[name].Discriminator(image_size, channels, num_classes, width)
    for network in (generator, discriminator):
        if isinstance(network, Growing) and network.levels == 1:
            network.grow(1_200_000)  # while its one level fades in all parameters matter
    return Pair(
        generator,
        discriminator,
        torch.randn(batch, LATENT_DIM),
        torch.arange(batch) % max(num_classes, 1),
        shape,
    )


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 0), (3, 3), (4, 3)])
@pytest.mark.parametrize(("name", "image_size"), SIZES)
def test_shapes_types_and_range(name: str, image_size: int | None, channels: int, num_classes: int) -> None:
    large = image_size is not None and image_size > 64
    batch = 1 if large else 3
    pair = make(name, image_size, channels, num_classes, width=1 if large else 2, batch=batch)
    with torch.no_grad():
        images = pair.generate()
        logits = pair.judge(images)
    assert images.shape == (batch, *pair.shape)
    assert images.dtype == torch.float32
    assert logits.shape == (batch,)
    assert logits.isfinite().all()
    assert pair.generator.latent_dim == LATENT_DIM


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_images_fill_the_range_and_vectors_leave_it(name: str, image_size: int | None) -> None:
    pair = make(name, image_size)
    pair.generator.eval()
    with torch.no_grad():
        for parameter in pair.generator.parameters():
            parameter.mul_(20)
    largest = pair.generate().abs().max().item()
    assert largest > 1 if image_size is None else 0.9 < largest <= 1


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_gradients_reach_every_parameter(name: str, image_size: int | None, num_classes: int) -> None:
    pair = make(name, image_size, num_classes=num_classes, width=8, batch=16)
    open_gates(pair.generator)
    open_gates(pair.discriminator)
    torch.autograd.backward(pair.judge(pair.generate()).square().sum())
    for network in (pair.generator, pair.discriminator):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name


def open_gates(network: nn.Module) -> None:
    """Makes branches count that networks start without: factors and last layers that are 0 before the first step."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)


def perturb(network: nn.Module) -> None:
    """Makes conditional batch norm's gains and biases differ between classes, as after training."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_labels_matter_exactly_when_conditional(name: str, image_size: int | None) -> None:
    for num_classes in (0, 3):
        pair = make(name, image_size, num_classes=num_classes, width=16)
        perturb(pair.generator.eval())
        perturb(pair.discriminator.eval())
        images = torch.randn(5, *pair.shape)
        outputs = []
        for label in (1, 2):
            pair.labels = torch.full((5,), label)
            outputs.append((pair.generate(), pair.judge(images)))
        (generated1, logits1), (generated2, logits2) = outputs
        assert torch.equal(generated1, generated2) == (num_classes == 0)
        assert torch.equal(logits1, logits2) == (num_classes == 0)


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_the_discriminator_relates_label_and_image(name: str, image_size: int | None) -> None:
    """D(x, y) is no sum f(x) + g(y), which would tell G nothing about which image belongs to which label."""
    pair = make(name, image_size, num_classes=3, width=8)
    perturb(pair.discriminator.eval())
    images = torch.randn(5, *pair.shape)
    first, second = (pair.discriminator(images, torch.full((5,), label)) for label in (1, 2))
    assert (first - second).std() > 1e-4


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_initialization_follows_the_seed(name: str, image_size: int | None, num_classes: int) -> None:
    def states(seed: int) -> list[dict[str, Tensor]]:
        torch.manual_seed(seed)
        pair = make(name, image_size, num_classes=num_classes)
        return [pair.generator.state_dict(), pair.discriminator.state_dict()]

    for first, again, other in zip(states(1), states(1), states(2), strict=True):
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("copied", [copy.deepcopy, None], ids=["deepcopy", "state_dict"])
@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_copies_behave_the_same(
    name: str, image_size: int | None, num_classes: int, copied: Callable[[nn.Module], nn.Module] | None
) -> None:
    pair, twin = (make(name, image_size, num_classes=num_classes) for _ in range(2))
    pair.judge(pair.generate())  # moves batch norm's statistics and spectral norm's vectors
    for side in ("generator", "discriminator"):
        network = getattr(pair, side)
        if copied is not None:
            setattr(twin, side, copied(network))
        else:
            getattr(twin, side).load_state_dict(network.state_dict(), strict=True)
    twin.latents = pair.latents
    for _ in range(2):  # the buffers that the first pass moves move alike
        images = pair.generate()
        assert torch.equal(images, twin.generate())
        assert torch.equal(pair.judge(images), twin.judge(images))
    with torch.no_grad():
        next(pair.discriminator.parameters()).add_(1.0)
    assert not torch.equal(pair.judge(images), twin.judge(images))


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_a_gradient_penalty_beside_real_and_fake_logits(
    name: str, image_size: int | None, num_classes: int
) -> None:
    """Two passes before one backward, one of them differentiated twice."""
    pair = make(name, image_size, num_classes=num_classes)
    real = torch.randn(5, *pair.shape, requires_grad=True)
    real_logits, fake_logits = pair.judge(real), pair.judge(torch.randn(5, *pair.shape))
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    torch.autograd.backward(real_logits.mean() - fake_logits.mean() + gradient.square().sum())
    first = next(pair.discriminator.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.discriminator.parameters())
    assert first.grad is not None


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


@pytest.mark.parametrize("module", [mlp, dcgan])
def test_only_norm_batch_puts_batch_norm_in_the_discriminator(module: object) -> None:
    discriminator = module.Discriminator  # type: ignore[attr-defined]
    assert batch_norms(discriminator(16, 3, width=4, norm="batch")) > 0
    images, labels = torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)
    for norm in ("layer", "none"):
        network = discriminator(16, 3, width=4, norm=norm)
        assert batch_norms(network) == 0
        alone = torch.cat([network(images[i : i + 1], labels[:1]) for i in range(4)])
        torch.testing.assert_close(network(images, labels), alone)
    assert batch_norms(sngan.Discriminator(32, 3, width=4)) == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name != "mlp"])
@pytest.mark.parametrize("image_size", [2, 24, 33, 4096, 0, -8])
def test_an_unsupported_size_names_itself_and_the_supported(name: str, image_size: int) -> None:
    supported = ", ".join(map(str, sizes(name)))
    message = f"does not support image_size={image_size}.*{supported}"
    with pytest.raises(ValueError, match=f"{name} {message}"):
        MODULES[name].Generator(8, image_size, 3)
    discriminator = MODULES[name].Discriminator  # which may be another network's
    with pytest.raises(ValueError, match=f"{discriminator.__module__.rpartition('.')[2]} {message}"):
        discriminator(image_size, 3)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "mlp"])
def test_vectors_are_sent_to_the_mlp(name: str) -> None:
    with pytest.raises(ValueError, match="model=mlp"):
        MODULES[name].Generator(8, None, 2)
    with pytest.raises(ValueError, match="model=mlp"):
        MODULES[name].Discriminator(None, 2)


def test_mlp_refuses_sizes_below_one() -> None:
    with pytest.raises(ValueError, match="image_size=0"):
        mlp.Generator(8, 0, 3)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
@pytest.mark.parametrize("name", MODULES)
def test_the_configuration_gives_every_argument_that_the_class_takes(name: str, side: str) -> None:
    config = configuration(name)[side]
    network = getattr(MODULES[name], config.pop("_target_").rpartition(".")[2])
    assert set(config) == set(inspect.signature(network).parameters)


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_bfloat16_autocast(name: str, image_size: int | None) -> None:
    """Forward and backward in mixed precision are finite, and near those in float32."""
    pair = make(name, image_size, num_classes=3, width=8)
    pair.generator.eval()
    pair.discriminator.eval()
    logits = pair.judge(pair.generate())
    with torch.autocast("cpu", torch.bfloat16):
        images = pair.generate()
        rounded = pair.judge(images)
    torch.autograd.backward(rounded.float().sum())
    assert images.shape == (5, *pair.shape)
    for network in (pair.generator, pair.discriminator):
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    torch.testing.assert_close(rounded.float(), logits, rtol=0.2, atol=0.2 * logits.abs().max().item())


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_the_compiler_sees_each_network_whole(name: str, image_size: int | None) -> None:
    """No graph break: with the eager backend the compiler traces, and nothing is built."""
    pair = make(name, image_size, num_classes=3)
    # Networks that grow read the time from their saved state in evaluation mode; only training compiles.
    growing = isinstance(pair.generator, Growing)
    pair.generator.train(growing)
    pair.discriminator.train(growing)
    torch.compiler.reset()
    generator: Any = torch.compile(pair.generator, backend="eager", fullgraph=True)
    discriminator: Any = torch.compile(pair.discriminator, backend="eager", fullgraph=True)
    with torch.no_grad():
        images = generator(pair.latents, pair.labels)
        torch.testing.assert_close(images, pair.generate())
        torch.testing.assert_close(discriminator(images, pair.labels), pair.judge(images))
