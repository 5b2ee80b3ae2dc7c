"""Path length against closed forms and float64, and what it makes of a model."""

from __future__ import annotations

import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from ganforge.evaluation.metrics.path_length import PIXELS, PathLength, within_percentiles
from ganforge.evaluation.sample import Sample


class LinearModel:
    """Images W_y z, at most about 1 in size."""

    device = torch.device("cpu")

    def __init__(self, latent_dim=5, num_classes=0, channels=1, seed=0, scale=0.1):
        self.latent_dim, self.num_classes = latent_dim, num_classes
        random = torch.Generator().manual_seed(seed)
        self.weight = scale * torch.randn(
            max(1, num_classes), channels, 4, 4, latent_dim, generator=random, dtype=torch.float64
        )
        self.labels = []

    def generate(self, z, labels):
        assert z.dtype == torch.float32
        assert labels.dtype == torch.int64
        self.labels += labels.tolist()
        return torch.einsum("bchwd,bd->bchw", self.weight[labels].float(), z)

    def discriminator_features(self, images, labels):
        return None


class SmoothModel(LinearModel):
    def generate(self, z, labels):
        return super().generate(z, labels).tanh()


def made_by(model):
    return Sample(count=4, model=model)


def ends(steps, latent_dim, num_classes=0, seed=2020):
    """z, the second end and the labels as torch-fidelity draws them."""
    random = np.random.RandomState(seed)
    z, end = (random.randn(steps, latent_dim).astype(np.float32).astype(np.float64) for _ in range(2))
    labels = random.randint(0, num_classes, (steps,)) if num_classes else np.zeros(steps, dtype=int)
    return z, end, labels


def cut(lengths):
    """Those from the 1st to the 99th percentile, by counting."""
    ordered, n = np.sort(lengths), len(lengths)
    return ordered[int(np.floor(0.01 * (n - 1))) : int(np.ceil(0.99 * (n - 1))) + 1]


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("epsilon", "tolerance"), [(1e-4, 0.02), (1e-2, 2e-4), (1.0, 1e-5)])
def test_linear_generator_has_a_closed_form(num_classes, channels, epsilon, tolerance):
    """|W (end - z)|², whatever the step."""
    model = LinearModel(num_classes=num_classes, channels=channels)
    z, end, labels = ends(150, 5, num_classes)
    moved = np.einsum("bchwd,bd->bchw", model.weight.numpy()[labels], end - z)
    expected = cut((moved**2).mean(axis=(1, 2, 3)))
    figures = PathLength(150, epsilon=epsilon, similarity=PIXELS, batch_size=32)(
        made_by(model), Sample(count=0)
    )
    assert figures["ppl"] == pytest.approx(expected.mean(), rel=tolerance)
    assert figures["ppl_std"] == pytest.approx(expected.std(), rel=tolerance)
    if num_classes:
        assert set(model.labels) == set(range(num_classes))
    else:
        assert set(model.labels) == {0}


@pytest.mark.parametrize("seed", [3, 4])
def test_smooth_generator_agrees_with_float64(seed):
    model = SmoothModel(seed=seed, scale=0.4)
    z, end, _ = ends(100, 5, seed=seed)
    weight = model.weight.numpy()[0]
    near = z + (end - z) * 1e-2
    difference = np.tanh(np.einsum("chwd,bd->bchw", weight, near)) - np.tanh(
        np.einsum("chwd,bd->bchw", weight, z)
    )
    expected = cut((difference**2).mean(axis=(1, 2, 3)) / 1e-4)
    figures = PathLength(100, epsilon=1e-2, similarity=PIXELS, seed=seed)(made_by(model), Sample(count=0))
    assert figures["ppl"] == pytest.approx(expected.mean(), rel=1e-3)
    assert figures["ppl_std"] == pytest.approx(expected.std(), rel=1e-3)


def test_small_steps_are_not_lost_to_rounding_of_pixels():
    """A step of 1e-4 moves a pixel by a thousandth of a level or so: steps of other sizes have to agree."""
    model = SmoothModel()
    figures = [
        PathLength(200, epsilon=e, similarity=PIXELS)(made_by(model), Sample(count=0))["ppl"]
        for e in (1e-4, 1e-3)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=0.02)


@pytest.mark.parametrize("interpolation", ["lerp", "slerp_any", "slerp_unit"])
def test_ways(interpolation):
    ppl = PathLength(20, epsilon=1e-2, similarity=PIXELS, interpolation=interpolation)
    figures = ppl(made_by(LinearModel()), Sample(count=0))
    assert figures["ppl"] > 0
    assert ppl.parameters()["interpolation"] == interpolation


def test_order_of_smoothness_and_a_constant_generator():
    ppl = PathLength(50, epsilon=1e-2, similarity=PIXELS)
    rough, smooth, constant = (
        ppl(made_by(LinearModel(scale=s)), Sample(count=0))["ppl"] for s in (0.2, 0.1, 0)
    )
    assert rough == pytest.approx(4 * smooth, rel=1e-3)
    assert constant == 0


def test_a_module_keeps_its_mode():
    class Module(torch.nn.Module):
        latent_dim, num_classes, device = 3, 0, torch.device("cpu")

        def generate(self, z, labels):
            assert self.training
            return z[:, :, None, None].expand(-1, -1, 4, 4)

        def discriminator_features(self, images, labels):
            return None

    model = Module()
    PathLength(4, epsilon=1e-2, similarity=PIXELS)(made_by(model), Sample(count=0))
    assert model.training


def test_leaves_global_random_numbers_alone_and_repeats_itself():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    ppl = PathLength(10, similarity=PIXELS)
    figures = [ppl(made_by(LinearModel(num_classes=2)), Sample(count=0)) for _ in range(2)]
    assert figures[0] == figures[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("n", [1, 2, 5, 100, 101, 1000])
def test_percentiles(n):
    values = np.random.RandomState(n).rand(n)
    assert np.array_equal(np.sort(within_percentiles(values)), cut(values))


def test_needs_a_model_with_latents():
    ppl = PathLength(4, similarity=PIXELS)
    assert ppl.lacks(Sample(count=4), Sample(count=0)) == "the generated side has no model"
    without = LinearModel()
    without.latent_dim = 0
    assert "no images from a z" in ppl.lacks(made_by(without), Sample(count=0))
    assert ppl.lacks(made_by(LinearModel()), Sample(count=0)) is None


def test_images_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="ppl: a path length is not finite"):
        PathLength(8, similarity=PIXELS)(made_by(LinearModel(scale=float("nan"))), Sample(count=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "ppl: num_samples is 0"),
        ({"epsilon": 0}, "ppl: epsilon is 0"),
        ({"epsilon": 1.5}, "ppl: epsilon is 1.5"),
        ({"batch_size": 0}, "ppl: batch_size is 0"),
        ({"resize": 0}, "ppl: resize is 0"),
        ({"similarity": "lpips"}, "ppl: similarity is 'lpips'.*lpips-vgg16, ganforge-pixels"),
        ({"interpolation": "arc"}, "ppl: interpolation is 'arc'.*slerp_any"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PathLength(**arguments)


def test_without_a_network_the_message_names_the_ways_out(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"vgg16-397923af.pth into {tmp_path}.*similarity={PIXELS}"):
        PathLength(4)(made_by(LinearModel(channels=3)), Sample(count=0))
    assert torch.equal(torch.get_rng_state(), before)
