"""What every pair of networks promises: shapes, range, gradients, labels, seeds, copies and saved states."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ganforge.networks import dcgan, mlp, sngan

CONF = Path(__file__).parents[2] / "conf" / "model"
MODULES = {"mlp": mlp, "dcgan": dcgan, "sngan": sngan}
SIZES: list[tuple[str, int | None]] = [
    ("mlp", None),
    ("mlp", 1),
    ("mlp", 8),
    ("mlp", 28),
    *(("dcgan", size) for size in dcgan.IMAGE_SIZES),
    *(("sngan", size) for size in sngan.ARCHITECTURES),
]
PAIRS: list[tuple[str, int | None]] = [("mlp", None), ("mlp", 8), ("dcgan", 8), ("dcgan", 32), ("sngan", 32)]
LATENT_DIM = 7


@dataclass
class Pair:
    generator: nn.Module
    discriminator: nn.Module
    latents: Tensor
    labels: Tensor
    shape: tuple[int, ...]

    def generate(self) -> Tensor:
        images: Tensor = self.generator(self.latents, self.labels)
        return images

    def judge(self, images: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(images, self.labels)
        return logits


def make(
    name: str, image_size: int | None, channels: int = 3, num_classes: int = 0, width: int = 4, batch: int = 5
) -> Pair:
    shape = (channels,) if image_size is None else (channels, image_size, image_size)
    return Pair(
        MODULES[name].Generator(LATENT_DIM, image_size, channels, num_classes, width),
        MODULES[name].Discriminator(image_size, channels, num_classes, width),
        torch.randn(batch, LATENT_DIM),
        torch.arange(batch) % max(num_classes, 1),
        shape,
    )


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("name", "image_size"), SIZES)
def test_shapes_types_and_range(name: str, image_size: int | None, channels: int, num_classes: int) -> None:
    pair = make(name, image_size, channels, num_classes, width=2, batch=3)
    images = pair.generate()
    assert images.shape == (3, *pair.shape)
    assert images.dtype == torch.float32
    logits = pair.judge(images)
    assert logits.shape == (3,)
    assert logits.isfinite().all()
    assert pair.generator.latent_dim == LATENT_DIM


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_images_fill_the_range_and_vectors_leave_it(name: str, image_size: int | None) -> None:
    pair = make(name, image_size)
    with torch.no_grad():
        for parameter in pair.generator.parameters():
            parameter.mul_(20)
    largest = pair.generate().abs().max().item()
    assert largest > 1 if image_size is None else 0.9 < largest <= 1


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_gradients_reach_every_parameter(name: str, image_size: int | None, num_classes: int) -> None:
    pair = make(name, image_size, num_classes=num_classes, width=8, batch=16)
    torch.autograd.backward(pair.judge(pair.generate()).square().sum())
    for network in (pair.generator, pair.discriminator):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name


def perturb(network: nn.Module) -> None:
    """Makes conditional batch norm's gains and biases differ between classes, as after training."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize(("name", "image_size"), PAIRS)
def test_labels_matter_exactly_when_conditional(name: str, image_size: int | None) -> None:
    for num_classes in (0, 3):
        pair = make(name, image_size, num_classes=num_classes)
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


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
@pytest.mark.parametrize("image_size", [4, 24, 33, 512, 0, -8])
def test_an_unsupported_size_names_itself_and_the_supported(name: str, image_size: int) -> None:
    supported = ", ".join(map(str, dcgan.IMAGE_SIZES if name == "dcgan" else sngan.ARCHITECTURES))
    message = f"{name} does not support image_size={image_size}.*{supported}"
    with pytest.raises(ValueError, match=message):
        MODULES[name].Generator(8, image_size, 3)
    with pytest.raises(ValueError, match=message):
        MODULES[name].Discriminator(image_size, 3)


@pytest.mark.parametrize("name", ["dcgan", "sngan"])
def test_vectors_are_sent_to_the_mlp(name: str) -> None:
    with pytest.raises(ValueError, match="model=mlp"):
        MODULES[name].Generator(8, None, 2)
    with pytest.raises(ValueError, match="model=mlp"):
        MODULES[name].Discriminator(None, 2)


def test_mlp_refuses_sizes_below_one() -> None:
    with pytest.raises(ValueError, match="image_size=0"):
        mlp.Generator(8, 0, 3)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configuration_gives_every_argument_that_the_class_takes(path: Path, side: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(config, dict)
    config = config[side]
    module, _, class_name = config.pop("_target_").rpartition(".")
    network = getattr(MODULES[module.rpartition(".")[2]], class_name)
    assert set(config) == set(inspect.signature(network).parameters)
