"""MS-SSIM and LPIPS of pairs against float64 computations, and that collapse shows."""

from __future__ import annotations

import inspect
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy import ndimage
from torch.nn import functional as F
from torchmetrics.functional.image import lpips, multiscale_structural_similarity_index_measure

from ganforge.evaluation.metrics.diversity import (
    LPIPSDiversity,
    MSSSIMDiversity,
    draw_pairs,
    lpips_distance,
    lpips_network,
    ms_ssim,
    scales_and_reach,
    shared_classes,
)
from ganforge.evaluation.sample import Sample

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def side(images, labels=None):
    return Sample(count=len(images), labels=labels, images=lambda rows: images[rows], num_images=len(images))


def random_images(seed, *shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def alike(seed, count, size, noise):
    """Noisy copies of one image."""
    random = np.random.RandomState(seed)
    base = ndimage.gaussian_filter(random.randn(size, size), 1) * 200 + 128
    images = base + noise * random.randn(count, 1, size, size)
    return torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8))


def ms_ssim_by_hand(one, other):
    """float64 (H, W) twice, by SciPy's filters."""
    scales, reach = scales_and_reach(*one.shape)
    steps = np.arange(-reach, reach + 1)
    window = np.exp(-(steps**2) / (2 * (1.5 * reach / 5) ** 2))
    window /= window.sum()

    def blur(x):
        return ndimage.correlate1d(ndimage.correlate1d(x, window, 0, mode="mirror"), window, 1, mode="mirror")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    result, total = 1.0, sum(BETAS[:scales]) / sum(BETAS)
    for scale in range(scales):
        mean, mean_other = blur(one), blur(other)
        variance, variance_other = blur(one * one) - mean**2, blur(other * other) - mean_other**2
        contrast = (2 * (blur(one * other) - mean * mean_other) + c2) / (variance + variance_other + c2)
        luminance = (2 * mean * mean_other + c1) / (mean**2 + mean_other**2 + c1)
        inner = slice(reach, -reach)
        term = (luminance * contrast).mean() if scale == scales - 1 else contrast[inner, inner].mean()
        result *= max(term, 0) ** (BETAS[scale] / total)
        even = [length // 2 * 2 for length in one.shape]
        one, other = (
            x[: even[0], : even[1]].reshape(even[0] // 2, 2, even[1] // 2, 2).mean(axis=(1, 3))
            for x in (one, other)
        )
    return result


@pytest.mark.parametrize("shape", [(8, 8), (3, 5), (16, 16), (28, 28), (45, 61), (100, 100)])
def test_ms_ssim_agrees_with_float64(shape):
    size = max(shape)
    for noise in (2, 20, 60):
        images = alike(size, 2, size, noise)[:, :, : shape[0], : shape[1]]
        expected = ms_ssim_by_hand(*images[:, 0].double().numpy())
        assert float(ms_ssim(images[:1], images[1:])) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("side_length", "expected"),
    [
        (3, (1, 1)),
        (8, (1, 3)),
        (11, (1, 5)),
        (21, (1, 5)),
        (22, (2, 5)),
        (44, (3, 5)),
        (99, (4, 5)),
        (176, (5, 5)),
    ],
)
def test_as_many_scales_as_fit(side_length, expected):
    assert scales_and_reach(side_length, 500) == expected
    images = random_images(side_length, 2, 3, side_length, side_length + 1)
    assert float(ms_ssim(images[:1], images[:1])) == pytest.approx(1, abs=1e-5)
    assert 0 <= float(ms_ssim(images[:1], images[1:])) < 0.5


def test_large_images_are_torchmetrics_default():
    one, other = alike(1, 2, 176, 30)[:, None]
    expected = multiscale_structural_similarity_index_measure(one.float(), other.float(), data_range=255.0)
    assert float(ms_ssim(one, other)) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_of_one_class_and_never_an_image_with_itself(seed):
    labels = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(seed))
    labels[0] = 9  # alone in its class
    classes = shared_classes([labels, labels[:30]])
    assert classes == [k for k in range(4) if (labels[:30] == k).sum() >= 2]
    pairs = draw_pairs(labels, classes, 301)
    assert pairs.shape == (304, 2)
    assert torch.equal(labels[pairs[:, 0]], labels[pairs[:, 1]])
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert torch.equal(labels[pairs[:, 0]].bincount(), torch.full((4,), 76))
    assert set(pairs.flatten().tolist()) == set((labels < 4).nonzero()[:, 0].tolist())


def test_ms_ssim_is_the_mean_over_the_pairs_of_a_class():
    images, labels = alike(2, 12, 8, 40), torch.arange(12) % 3
    images[labels == 1] = alike(3, 4, 8, 5)
    expected = np.mean(
        [ms_ssim_by_hand(*images[pair, 0].double().numpy()) for pair in draw_pairs(labels, [0, 1, 2], 60)]
    )
    figures = MSSSIMDiversity(60)(side(images, labels), side(images, labels))
    assert figures["ms_ssim"] == pytest.approx(expected, abs=1e-4)
    assert figures["ms_ssim_real"] == figures["ms_ssim"]


def test_collapse_within_classes_shows(digits):
    real = side(digits.images, digits.labels)
    firsts = torch.tensor([int((digits.labels == k).nonzero()[0]) for k in range(10)]).repeat(20)
    metric = MSSSIMDiversity(500)
    collapsed = metric(side(digits.images[firsts], digits.labels[firsts]), real)
    assert collapsed["ms_ssim"] == pytest.approx(1, abs=1e-5)
    fine = metric(side(digits.images[900:], digits.labels[900:]), real)
    assert fine["ms_ssim"] == pytest.approx(fine["ms_ssim_real"], abs=0.05)
    assert fine["ms_ssim_real"] < 0.75
    # Between classes there is less in common; without labels pairs are of all.
    unlabelled = metric(side(digits.images[900:]), side(digits.images))
    assert unlabelled["ms_ssim"] < fine["ms_ssim"] - 0.1
    assert metric(side(digits.images), Sample(count=4, features=torch.ones(4, 2))).keys() == {"ms_ssim"}


def test_constant_few_and_bad_images():
    flat = torch.full((4, 1, 8, 8), 9, dtype=torch.uint8)
    metric = MSSSIMDiversity(10)
    assert metric(side(flat), side(flat)) == pytest.approx({"ms_ssim": 1, "ms_ssim_real": 1}, abs=1e-5)
    with pytest.raises(ValueError, match=r"ms_ssim compares images of one shape.*\(1, 8, 8\)"):
        metric(side(flat), side(random_images(1, 4, 3, 8, 8)))
    with pytest.raises(ValueError, match="ms_ssim needs at least 2 images"):
        metric(side(flat[:1]), side(flat))
    with pytest.raises(ValueError, match="ms_ssim needs a class with two images"):
        metric(side(flat, torch.arange(4)), side(flat, torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(ValueError, match="at least 3x3 pixels, not 2x8"):
        metric(side(flat[:, :, :2]), side(flat[:, :, :2]))
    with pytest.raises(ValueError, match="ms_ssim: pairs is 0"):
        MSSSIMDiversity(0)
    with pytest.raises(ValueError, match="lpips_diversity: num_images is 1"):
        LPIPSDiversity(num_images=1)
    with pytest.raises(ValueError, match=r"lpips_diversity: net is 'resnet'.*alex, vgg, squeeze"):
        LPIPSDiversity("resnet")
    assert metric.lacks(Sample(count=4), side(flat)) == "the generated side has no images"


def write_backbone(folder, net):
    """A random state dict of the shape of torchvision's weights."""
    name = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}[net]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(net))
        with torch.device("meta"):
            shapes = getattr(torchvision.models, name)().state_dict()
        state = {
            key: torch.randn(value.shape) / max(1, value[0].numel()) ** 0.5
            for key, value in shapes.items()
            if key.startswith("features")
        }
    path = folder / f"{net}.pth"
    torch.save(state, path)
    return path, state


def lpips_by_hand(net, state, one, other):
    """Zhang et al. 2018, equation 1: float64, layer by layer of torchvision's network."""
    name, taps = {
        "alex": ("alexnet", (1, 4, 7, 9, 11)),
        "vgg": ("vgg16", (3, 8, 15, 22, 29)),
        "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12)),
    }[net]
    with torch.device("meta"):
        network = getattr(torchvision.models, name)().features
    features = {key.removeprefix("features."): value for key, value in state.items()}
    network.load_state_dict(features, assign=True)
    network.double()
    file = Path(inspect.getfile(lpips)).parent / f"lpips_models/{net}.pth"
    linear = torch.load(file, map_location="cpu", weights_only=True)
    shift, scale = (
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1)
        for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
    )
    x = torch.cat([one, other]).double() / 127.5 - 1
    x = x.expand(-1, 3, -1, -1)
    if x.shape[-1] < 64:
        x = F.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
    x, result = (x - shift) / scale, torch.zeros(len(one), dtype=torch.float64)
    for index, layer in enumerate(network):
        x = layer(x)
        if index in taps:
            unit = x / x.norm(dim=1, keepdim=True)
            squares = (unit[: len(one)] - unit[len(one) :]).square()
            weight = linear[f"lin{taps.index(index)}.model.1.weight"].double()
            result += (squares * weight).sum(dim=1).mean(dim=(1, 2))
    return result.detach()


@pytest.mark.parametrize(
    ("net", "size", "channels"),
    [("alex", 64, 3), ("squeeze", 28, 1), pytest.param("vgg", 32, 3, marks=pytest.mark.slow)],
)
def test_lpips_from_a_file_agrees_with_float64(tmp_path, net, size, channels):
    path, state = write_backbone(tmp_path, net)
    images = random_images(size, 6, channels, size, size)
    images[3:, :, : size // 2] = images[:3, :, : size // 2]
    before = torch.get_rng_state()
    network = lpips_network(net, str(path))
    assert torch.equal(torch.get_rng_state(), before)
    distances = lpips_distance(network, images[:3], images[3:])
    expected = lpips_by_hand(net, state, images[:3], images[3:])
    assert torch.allclose(distances.double(), expected, rtol=1e-3)
    assert (distances > 0).all()
    assert lpips_distance(network, images, images).abs().max() < 1e-6


def test_lpips_diversity_of_classes(tmp_path):
    path, state = write_backbone(tmp_path, "squeeze")
    images, labels = random_images(1, 12, 3, 16, 16), torch.arange(12) % 2
    metric = LPIPSDiversity("squeeze", pairs=20, weights_path=str(path))
    figures = metric(side(images, labels), side(images // 4 + 90, labels))
    pairs = draw_pairs(labels, [0, 1], 20)
    expected = lpips_by_hand("squeeze", state, images[pairs[:, 0]], images[pairs[:, 1]]).mean()
    assert figures["lpips_diversity"] == pytest.approx(float(expected), rel=1e-3)
    assert figures["lpips_diversity"] > figures["lpips_diversity_real"] > 0
    collapsed = metric(side(images[labels], labels), side(images // 4 + 90, labels))
    assert collapsed["lpips_diversity"] == pytest.approx(0, abs=1e-6)
    assert collapsed["lpips_diversity_real"] == figures["lpips_diversity_real"]
    with torch.inference_mode():
        again = LPIPSDiversity("squeeze", pairs=20, weights_path=str(path))
        assert (
            again(side(images, labels), side(images, labels))["lpips_diversity"] == figures["lpips_diversity"]
        )


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    two = side(random_images(1, 4, 3, 8, 8))
    with pytest.raises(ValueError, match=r"no route.*alexnet-owt-7be5be79.pth.*weights_path=FILE"):
        LPIPSDiversity()(two, two)
    with pytest.raises(ValueError, match=r"missing.pth.*vgg16-397923af.pth"):
        LPIPSDiversity("vgg", weights_path=str(tmp_path / "missing.pth"))(two, two)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"damaged.pth.*weights_path=FILE"):
        LPIPSDiversity(weights_path=str(damaged))(two, two)
    other, _ = write_backbone(tmp_path, "squeeze")
    with pytest.raises(ValueError, match=r"squeeze.pth does not hold the weights of alex"):
        LPIPSDiversity(weights_path=str(other))(two, two)
    torch.save([1, 2], damaged)
    with pytest.raises(ValueError, match=r"damaged.pth does not hold the weights of alex"):
        LPIPSDiversity(weights_path=str(damaged))(two, two)
