"""StyleGAN3: published sizes, filters against SciPy, the filtered activation, and images that move as their input."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks import stylegan3
from ganforge.networks.layers import filtered
from ganforge.networks.layers.activation import activate
from ganforge.networks.layers.filtered import FilteredActivation, kaiser_low_pass
from ganforge.networks.stylegan3 import FourierFeatures, Generator, NormalizedConv, Signal, signals_of_layers


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("image_size", "width", "published", "parameters"),
    [
        (1024, None, "22.3M", 22_313_167),  # the paper's section 4
        (256, 64, "23.3M", 23_320_443),  # figure 5, the comparison with G-CNN
    ],
)
def test_published_sizes(image_size: int, width: int | None, published: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(Generator(512, image_size, 3, width=width)) == parameters
    assert f"{parameters / 1e6:.1f}M" == published


def test_signals_are_the_papers() -> None:
    """Appendix F.1 and figure 4c: 14 layers for 1024x1024."""
    signals = signals_of_layers(1024, 14, 32, 512, 10)
    first, last = signals[0], signals[-1]
    assert (first.cutoff, first.rate, first.size, first.channels) == (2, 16, 36, 512)
    assert first.cutoff + first.half_width == 8  # as wide a transition as the rate allows
    assert (last.cutoff, last.rate, last.size, last.channels) == (512, 1024, 1024, 32)
    assert last.cutoff + last.half_width == pytest.approx(512 * 2**0.3)
    assert signals[-2].cutoff == 512
    assert signals[-2].size == 1044
    assert [signal.rate for signal in signals] == [16, 16, 32, 32, 64, 128, 128, 256, 256, 512, *[1024] * 4]
    for before, after in pairwise(signals[:-1]):
        assert after.cutoff / before.cutoff == pytest.approx(256 ** (1 / 12))


@pytest.mark.parametrize("image_size", [8, 64, 1024])
def test_filters_are_scipys_and_stop_what_they_should(image_size: int) -> None:
    for signal in signals_of_layers(image_size, 14, 32, 512, 10):
        for factor in (2, 4):
            rate = signal.rate * factor
            line = kaiser_low_pass(6 * factor, signal.cutoff, signal.half_width, rate)
            by_scipy = scipy.signal.firwin(
                6 * factor, signal.cutoff, width=2 * signal.half_width, fs=rate, scale=True
            )
            np.testing.assert_allclose(line.numpy(), by_scipy, atol=1e-12)
            stopped = np.linspace(signal.cutoff + signal.half_width, rate / 2, 200)
            passed = np.linspace(0, max(0, signal.cutoff - signal.half_width), 50)
            _, response = scipy.signal.freqz(line.numpy(), worN=stopped, fs=rate)
            attenuation = scipy.signal.kaiser_atten(6 * factor, 2 * signal.half_width / (rate / 2))
            assert -20 * np.log10(np.abs(response).max() + 1e-12) > min(attenuation, 120) - 6
            _, response = scipy.signal.freqz(line.numpy(), worN=passed, fs=rate)
            assert np.abs(response).min() > 0.9


def by_hand(x: np.ndarray, before: Signal, after: Signal) -> np.ndarray:
    """Each sample is a sum over all others of the filter at the distance between their places, in float64."""
    rate = 2 * max(before.rate, after.rate)

    def places(size: int, rate: int) -> np.ndarray:
        return (np.arange(size) + 0.5 - size / 2) / rate

    def weights(to: np.ndarray, of: np.ndarray, signal: Signal) -> np.ndarray:
        taps = 6 * rate // signal.rate
        line = scipy.signal.firwin(taps, signal.cutoff, width=2 * signal.half_width, fs=rate)
        index = np.rint((to[:, None] - of[None]) * rate + (taps - 1) / 2).astype(int)
        return np.where((index >= 0) & (index < taps), line[np.clip(index, 0, taps - 1)], 0)

    between = places(2 * rate // min(before.rate, after.rate) * max(before.size, after.size), rate)
    up = weights(between, places(before.size, before.rate), before) * rate / before.rate
    down = weights(places(after.size, after.rate), between, after)
    x = up @ x @ up.T
    made: np.ndarray = down @ (np.where(x > 0, x, 0.2 * x) * math.sqrt(2)) @ down.T
    return made


PAIRS = [
    (Signal(2, 6, 16, 36, 3), Signal(2.5, 5.5, 16, 36, 3)),
    (Signal(4.4, 3.6, 16, 36, 3), Signal(6, 10, 32, 52, 3)),
    (Signal(8, 1.85, 16, 24, 3), Signal(8, 1.85, 16, 16, 3)),
    (Signal(3, 1, 8, 8, 3), Signal(4, 0.92, 8, 8, 3)),
    (Signal(2, 2, 8, 28, 3), Signal(16, 3, 32, 52, 3)),
]


def activation(before: Signal, after: Signal) -> FilteredActivation:
    return FilteredActivation(
        in_size=before.size,
        in_rate=before.rate,
        in_cutoff=before.cutoff,
        in_half_width=before.half_width,
        out_size=after.size,
        out_rate=after.rate,
        out_cutoff=after.cutoff,
        out_half_width=after.half_width,
    ).double()


@pytest.mark.parametrize("as_matrix", [True, False])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_filtered_activation_is_its_definition(
    monkeypatch: pytest.MonkeyPatch, before: Signal, after: Signal, as_matrix: bool
) -> None:
    print(f"seed {torch.seed()}")
    monkeypatch.setattr(filtered, "MATRIX_UP_TO", 1000 if as_matrix else 0)
    layer = activation(before, after)
    assert layer.as_matrix == as_matrix
    assert not layer.state_dict()
    x = torch.randn(2, 3, before.size, before.size, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    # Filters are kept in float32.
    np.testing.assert_allclose(y.detach().numpy(), by_hand(x.detach().numpy(), before, after), atol=1e-5)


def test_both_ways_of_filtering_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the outputs and of a penalty on their gradient, which is differentiated twice."""
    print(f"seed {torch.seed()}")
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    found = []
    for limit in (1000, 0):
        monkeypatch.setattr(filtered, "MATRIX_UP_TO", limit)
        layer = activation(Signal(3, 2, 8, 16, 3), Signal(5, 3, 16, 24, 3))
        y = layer(x * x)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), x)
        found.append((y, slope, second))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_slow_wave_passes_and_one_beyond_the_band_does_not() -> None:
    before = Signal(4, 1.5, 16, 60, 1)
    layer = activation(before, before)
    places = (torch.arange(60, dtype=torch.float64) + 0.5 - 30) / 16
    # An offset keeps both on the straight part of leaky ReLU.
    for frequency, passes in ((1.0, True), (7.9, False)):
        wave = torch.sin(2 * math.pi * frequency * places)
        y = layer((5 + wave).expand(1, 1, 60, 60))[0, 0, 30, 15:45] / math.sqrt(2) - 5
        expected = wave[15:45] if passes else torch.zeros(30, dtype=torch.float64)
        torch.testing.assert_close(y, expected, rtol=0, atol=0.05)


def features(w_dim: int = 4) -> FourierFeatures:
    return FourierFeatures(Signal(2, 6, 16, 36, 32), w_dim)


def test_fourier_features_turn_and_shift_as_the_affine_layer_says() -> None:
    print(f"seed {torch.seed()}")
    layer = features()
    assert layer.frequencies.norm(dim=1).max() <= 2
    w = torch.randn(3, 4)
    still = layer(w)
    torch.testing.assert_close(still, layer(torch.randn(3, 4)))  # whatever w is at first
    assert still.square().mean().item() == pytest.approx(1, abs=0.3)
    with torch.no_grad():
        layer.affine.bias[:] = torch.tensor([3.0, 0.0, 6 / 16, -9 / 16])  # 2 to the right and 3 up, times 3
    torch.testing.assert_close(layer(w)[:, :, :-3, 2:], still[:, :, 3:, :-2], rtol=0, atol=1e-4)
    shift = torch.tensor([-2 / 16, 3 / 16])
    torch.testing.assert_close(layer(w, shift), still, rtol=0, atol=1e-4)
    with torch.no_grad():
        layer.affine.bias[:] = torch.tensor([0.0, 5.0, 0.0, 0.0])  # a quarter turn, x to the right going down
    torch.testing.assert_close(layer(w), still.rot90(-1, (2, 3)), rtol=0, atol=1e-4)


class Plain(nn.Module):
    """Leaky ReLU at the sampling rate, and bilinear up-sampling: what frequencies there are, are not looked after."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return activate(F.interpolate(x, self.size, mode="bilinear"))


def equivariance(generator: Generator, size: int) -> tuple[float, float]:
    """EQ-T in dB (equation 3 and appendix E.1), and the same with the pictures' variance for their largest range.

    The latter is the harder one here, where weights are random and pictures paler than trained ones.
    """
    with torch.no_grad():
        w = generator.mapping(torch.randn(8, generator.latent_dim), torch.zeros(8, dtype=torch.int64))
        moves = torch.randint(-(size // 8), size // 8 + 1, (8, 2))
        images, moved = generator.synthesis(w), generator.synthesis(w, moves / size)
    errors = []
    for (x, y), image, other in zip(moves.tolist(), images, moved, strict=True):
        rows, columns = (slice(max(n, 0), size + min(n, 0)) for n in (y, x))
        errors.append((other - image.roll((y, x), (1, 2)))[:, rows, columns].square().mean())
    error = torch.stack(errors).mean().item() + 1e-12
    return 10 * math.log10(4 / error), 10 * math.log10(images.var().item() / error)


@pytest.mark.parametrize(("image_size", "layers"), [(16, 6), (32, 14), (64, 8)])
def test_images_move_as_the_input_does(image_size: int, layers: int) -> None:
    print(f"seed {torch.seed()}")
    settings = {"width": 256 // image_size, "max_width": 48, "w_dim": 32, "layers": layers}
    ours, relative = equivariance(Generator(32, image_size, 3, **settings), image_size)
    plain = Generator(32, image_size, 3, **settings, margin=0)
    rates = [signal.rate for signal in signals_of_layers(image_size, layers, 1, 1, 0)]
    for layer, rate in zip(plain.synthesis.layers, rates, strict=True):  # type: ignore[arg-type]
        layer.activation = Plain(rate)
    theirs, relative_theirs = equivariance(plain, image_size)
    print(f"EQ-T {ours:.1f} dB, relative {relative:.1f}; plain {theirs:.1f}, {relative_theirs:.1f}")
    assert ours > 45
    assert relative > 25
    assert relative > relative_theirs + 15


def test_what_a_layer_is_given_is_brought_to_unit_size_over_time() -> None:
    print(f"seed {torch.seed()}")
    torch.manual_seed(0)
    layer = NormalizedConv(16, 64, 3, 4, demodulate=True)
    x, w = torch.randn(8, 16, 12, 12) * 5, torch.randn(8, 4)
    assert layer.averaged_over_ranks == ("mean_square",)
    first = layer.eval()(x, w)
    assert layer.mean_square == 1
    layer.train()
    for _ in range(20):
        layer(x, w)
    after = 1 - (1 - stylegan3.MOMENTUM) ** 20
    assert layer.mean_square.item() == pytest.approx(1 + after * (x.square().mean().item() - 1), rel=1e-4)
    layer.mean_square.copy_(x.square().mean())
    assert layer.eval()(x, w).std().item() == pytest.approx(1, abs=0.15)
    torch.testing.assert_close(layer(x, w), first / x.square().mean().sqrt())


def small(**settings: object) -> Generator:
    return Generator(6, 8, 3, width=4, w_dim=8, layers=4, margin=4, **settings)  # type: ignore[arg-type]


def test_each_layer_takes_its_own_style() -> None:
    generator = small().eval()
    with torch.no_grad():
        generator.synthesis.input.affine.weight.normal_()  # type: ignore[union-attr,operator]
    assert generator.num_styles == 6
    styles = torch.randn(2, 6, 8)
    same = styles[:, :1].expand(-1, 6, -1)
    torch.testing.assert_close(generator.synthesis(same), generator.synthesis(styles[:, 0]))
    images = generator.synthesis(styles)
    for layer in range(6):
        other = styles.clone()
        other[:, layer] += 1
        assert not torch.equal(generator.synthesis(other), images)


def test_styles_are_mixed_and_truncated() -> None:
    labels = torch.tensor([0, 2, 2])
    generator, z = small(num_classes=3, mixing=1.0), torch.randn(3, 6)
    assert not torch.equal(generator(z, labels), generator(z, labels))
    generator.eval()
    assert torch.equal(generator(z, labels), generator(z, labels))
    averages = generator(z, labels, truncation=0.0)
    torch.testing.assert_close(averages[1], averages[2])
    assert not torch.equal(averages[0], averages[1])


def test_path_lengths_can_be_penalised() -> None:
    generator = small()
    w = torch.randn(3, 8, requires_grad=True)
    images = generator.synthesis(w)
    (slopes,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), w, create_graph=True)
    torch.autograd.backward(slopes.square().sum(dim=1).sqrt().var())
    for name, parameter in generator.synthesis.named_parameters():
        assert name.endswith("bias") or parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_fixed_waves_and_magnitudes_are_part_of_the_state() -> None:
    generator = small()
    for _ in range(3):
        generator(torch.randn(4, 6), torch.zeros(4, dtype=torch.int64))
    other = small().eval()
    other.load_state_dict(copy.deepcopy(generator.state_dict()), strict=True)
    z, labels = torch.randn(2, 6), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(generator.eval()(z, labels), other(z, labels))
    names = set(generator.state_dict()) - dict(generator.named_parameters()).keys()
    assert len(names) == 2 + 4 + 1  # frequencies and phases, a mean square for each convolution


@pytest.mark.parametrize(
    ("settings", "message"), [({"layers": 2}, "at least 3 layers"), ({"margin": -1}, "margin=-1")]
)
def test_mistakes_are_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(6, 8, 3, width=4, **settings)  # type: ignore[arg-type]
