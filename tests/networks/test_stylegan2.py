"""StyleGAN2: published sizes, modulated convolution against weights of each sample, noise, mixing and truncation."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks import stylegan2
from ganforge.networks.stylegan2 import Discriminator, Generator, modulated_conv2d


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("image_size", "width", "generator", "discriminator"),
    [
        (1024, None, 30_370_060, 29_012_513),  # 30 M and 29 M in the paper's table 1, configuration F
        (256, 64, 24_767_458, 24_001_089),  # StyleGAN2-ADA's paper256
    ],
)
def test_published_sizes(image_size: int, width: int | None, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        assert count(Generator(512, image_size, 3, width=width)) == generator
        assert count(Discriminator(image_size, 3, width=width)) == discriminator


def by_weights_of_each_sample(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool, up: bool
) -> Tensor:
    """As the paper has it: a grouped convolution with (B, O, I, K, K) weights."""
    weights = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        weights = weights / (weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    batch, out, _, _, _ = weights.shape
    flat = x.reshape(1, -1, *x.shape[2:])
    if up:
        y = F.conv_transpose2d(flat, weights.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
    else:
        y = F.conv2d(flat, weights.flatten(0, 1), padding=weight.shape[-1] // 2, groups=batch)
    return y.view(batch, out, *y.shape[2:])


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_is_one_with_weights_of_each_sample(
    demodulate: bool, up: bool, kernel: int
) -> None:
    print(f"seed {torch.seed()}")
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 4, 5, 6), (7, 4, kernel, kernel), (3, 4))
    ]
    outputs = [
        f(*inputs, demodulate=demodulate, up=up) for f in (modulated_conv2d, by_weights_of_each_sample)
    ]
    torch.testing.assert_close(*outputs)
    direction = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad((o * direction).sum(), inputs) for o in outputs]
    for ours, papers in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, papers)


def test_demodulated_outputs_of_normal_inputs_have_unit_size_whatever_the_styles() -> None:
    x, weight, styles = torch.randn(4, 64, 32, 32), torch.randn(16, 64, 3, 3), torch.randn(4, 64).exp()
    inner = modulated_conv2d(x, weight, styles)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inner.std(dim=(2, 3)), torch.ones(4, 16), rtol=0, atol=0.2)


def small(**settings: object) -> Generator:
    generator = Generator(6, 16, 3, width=4, w_dim=8, depth=2, **settings)  # type: ignore[arg-type]
    for conv in generator.synthesis.convs:
        nn.init.constant_(conv.noise.strength, 0.5)  # type: ignore[arg-type]
    return generator


def test_noise_follows_the_global_generator_in_training_and_is_fixed_in_evaluation() -> None:
    generator = small(mixing=0.0)
    z, labels = torch.randn(3, 6), torch.zeros(3, dtype=torch.int64)

    def images(seed: int) -> Tensor:
        torch.manual_seed(seed)
        made: Tensor = generator(z, labels)
        return made

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))
    generator.eval()
    assert torch.equal(images(1), images(2))
    torch.testing.assert_close(generator(z[1:2], labels[1:2])[0], images(1)[1])
    copy = small(mixing=0.0).eval()
    copy.load_state_dict(generator.state_dict())  # the fixed noise is part of the state
    assert torch.equal(copy(z, labels), images(1))


def test_noise_of_no_strength_is_none() -> None:
    generator = small(mixing=0.0)
    for conv in generator.synthesis.convs:
        nn.init.zeros_(conv.noise.strength)  # type: ignore[arg-type]
    z, labels = torch.randn(3, 6), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(generator(z, labels), generator(z, labels))


def styles_of(generator: Generator, z: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = generator.synthesis.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator(z, torch.zeros(len(z), dtype=torch.int64))
    hook.remove()
    return seen[0]


def test_mixing_changes_the_style_at_one_layer() -> None:
    generator, z = small(mixing=0.5), torch.randn(400, 6)
    own = generator.mapping(z, torch.zeros(400, dtype=torch.int64))
    styles = styles_of(generator, z)
    assert styles.shape == (400, 6, 8)  # 5 convolutions and the last layer to the image
    kept = (styles == own[:, None]).all(dim=2)
    cut = kept.sum(dim=1)
    assert torch.equal(kept, torch.arange(6) < cut[:, None])
    assert (cut == 6).float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert set(cut.tolist()) == {1, 2, 3, 4, 5, 6}
    for row, at in zip(styles, cut, strict=True):
        assert (row[at:] == row[at:][:1]).all()  # from there on one style
    assert styles_of(generator.eval(), z).shape == (400, 8)
    assert styles_of(small(mixing=0.0), z).shape == (400, 8)


def test_each_layer_takes_its_own_style() -> None:
    generator = small().eval()
    styles = torch.randn(2, 6, 8)
    same = styles[:, :1].expand(-1, 6, -1)
    torch.testing.assert_close(generator.synthesis(same), generator.synthesis(styles[:, 0]))
    images = generator.synthesis(styles)
    for layer in range(6):
        other = styles.clone()
        other[:, layer] += 1
        assert not torch.equal(generator.synthesis(other), images)


def test_truncation_leads_to_each_labels_mean_style() -> None:
    generator = small(num_classes=3).eval()
    z, labels = torch.randn(4, 6), torch.tensor([0, 2, 2, 1])
    mean = generator.mean_style(labels)
    assert torch.equal(mean, generator.mean_style(labels))
    assert torch.equal(mean[1], mean[2])
    assert not torch.equal(mean[0], mean[1])
    fresh = generator.mapping(torch.randn(20000, 6), torch.ones(20000, dtype=torch.int64)).mean(dim=0)
    torch.testing.assert_close(mean[3], fresh, rtol=0, atol=0.05)
    assert torch.equal(generator(z, labels, truncation=1.0), generator(z, labels))
    averages = generator(z, labels, truncation=0.0)
    torch.testing.assert_close(averages[1], averages[2])
    torch.testing.assert_close(averages, generator.synthesis(mean).clamp(-1, 1))
    half = generator.synthesis((mean + generator.mapping(z, labels)) / 2).clamp(-1, 1)
    torch.testing.assert_close(generator(z, labels, truncation=0.5), half)
    unconditional = small().eval()
    assert unconditional.mean_style(labels).unique(dim=0).shape == (1, 8)


def test_path_lengths_can_be_penalised() -> None:
    """The gradient of an image's product with noise by w is itself differentiable, for all of the synthesis."""
    generator = small()
    w = torch.randn(3, 8, requires_grad=True)
    images = generator.synthesis(w)
    (slopes,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), w, create_graph=True)
    torch.autograd.backward(slopes.square().sum(dim=1).sqrt().var())
    weights = [p for name, p in generator.synthesis.named_parameters() if name.endswith("weight")]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


def test_the_mapping_learns_at_a_hundredth_of_the_rate() -> None:
    for layer in small().mapping.layers:
        assert layer.learning_rate == 0.01


def test_the_discriminator_without_shortcuts_is_smaller() -> None:
    residual, plain = (Discriminator(16, 3, width=4, residual=residual) for residual in (True, False))
    assert count(residual) - count(plain) == 4 * 8 + 8 * 16


def test_widths_double_towards_4x4_up_to_the_largest() -> None:
    assert stylegan2.widths_of_levels(1024, None, 512) == {
        4: 512,
        8: 512,
        16: 512,
        32: 512,
        64: 512,
        128: 256,
        256: 128,
        512: 64,
        1024: 32,
    }
    assert set(stylegan2.widths_of_levels(32, None, 512).values()) == {512}
