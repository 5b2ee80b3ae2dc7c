"""KID against torch-fidelity and float64 sums, and the error it states against the spread of fresh samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.sample import Sample

POLY: dict[str, Any] = {"kernel": "poly"}
RBF: dict[str, Any] = {"kernel": "rbf", "sigma": 3.0}
KERNELS = [
    POLY,
    RBF,
    {"kernel": "poly", "degree": 2, "gamma": 0.3, "coef0": 0.5},
    {"kernel": "poly", "degree": 1},
]


def features(rows: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    return (torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) + shift).relu()


def sample(values: Tensor) -> Sample:
    return Sample(count=len(values), features=values)


def theirs(x: Tensor, y: Tensor, subsets: int, size: int, kernel: dict[str, Any]) -> tuple[float, float]:
    values = kid_features_to_metric(
        x,
        y,
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=2020,
        verbose=False,
        kid_kernel=kernel["kernel"],
        kid_kernel_poly_degree=kernel.get("degree", 3),
        kid_kernel_poly_gamma=kernel.get("gamma"),
        kid_kernel_poly_coef0=kernel.get("coef0", 1.0),
        kid_kernel_rbf_sigma=kernel.get("sigma", 10.0),
    )
    return values["kernel_inception_distance_mean"], values["kernel_inception_distance_std"]


def in_float64(x: Tensor, y: Tensor, kernel: dict[str, Any]) -> float:
    """The unbiased estimate of all rows, equally many on both sides."""

    def k(a: Tensor, b: Tensor) -> Tensor:
        if kernel["kernel"] == "rbf":
            return (-(a[:, None] - b[None]).square().sum(2) / (2 * kernel["sigma"] ** 2)).exp()
        gamma = kernel.get("gamma") or 1 / a.shape[1]
        return (gamma * a @ b.T + kernel.get("coef0", 1.0)) ** kernel.get("degree", 3)

    x, y, m = x.double(), y.double(), len(x)
    off = ~torch.eye(m, dtype=torch.bool)
    within = float(k(x, x)[off].sum() + k(y, y)[off].sum())
    return within / (m * (m - 1)) - 2 * float(k(x, y).sum()) / m**2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(("n", "m", "size"), [(300, 500, 100), (120, 90, 90)])
def test_equals_torch_fidelity(kernel: dict[str, Any], n: int, m: int, size: int, seed: int) -> None:
    x, y = features(n, 32, seed, shift=0.7), features(m, 32, seed + 100)
    values = KID(subsets=10, subset_size=size, **kernel)(sample(x), sample(y))
    mean, std = theirs(x, y, 10, size, kernel)
    # float32 kernels of a few rows: their powers and our products differ by 1e-7 of the kernel, which is about 1.
    assert values["kid_mean"] == pytest.approx(mean, rel=1e-6, abs=2e-7)
    assert values["kid_std"] == pytest.approx(std, rel=1e-6, abs=2e-7)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_one_subset_of_all_rows_is_the_float64_estimate(
    kernel: dict[str, Any], shift: float, seed: int
) -> None:
    x, y = features(64, 16, seed, shift), features(64, 16, seed + 100)
    value = KID(subsets=1, **kernel)(sample(x), sample(y))["kid_mean"]
    assert value == pytest.approx(in_float64(x, y, kernel), rel=1e-6, abs=2e-6)


@pytest.mark.parametrize("kernel", [POLY, RBF], ids=str)
def test_unbiased_for_equal_distributions_however_few_images(kernel: dict[str, Any]) -> None:
    metric = KID(subsets=1, **kernel)
    values = [
        metric(sample(features(8, 4, s)), sample(features(8, 4, s + 1000)))["kid_mean"] for s in range(400)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_the_subset_shrinks_to_the_smaller_side() -> None:
    x, y = features(5, 4, 0), features(50, 4, 1)
    values = KID(subsets=20)(sample(x), sample(y))
    assert values["kid_mean"] == pytest.approx(theirs(x, y, 20, 5, POLY)[0], rel=1e-5)


@pytest.mark.parametrize("kernel", [POLY, RBF], ids=str)
@pytest.mark.parametrize(("n", "size"), [(200, 1000), (200, 50)])
def test_the_interval_is_as_wide_as_the_spread_of_fresh_samples(
    kernel: dict[str, Any], n: int, size: int
) -> None:
    real = sample(features(400, 8, 0))
    metric = KID(subsets=40, subset_size=size, bootstrap=100, **kernel)
    spread = np.std([metric(sample(features(n, 8, s, 0.3)), real)["kid_mean"] for s in range(100, 160)])
    values = metric(sample(features(n, 8, 1, 0.3)), real)
    assert values["kid_high"] - values["kid_mean"] == pytest.approx(values["kid_mean"] - values["kid_low"])
    assert 0.6 < (values["kid_high"] - values["kid_mean"]) / (1.96 * spread) < 1.7


def test_the_interval_counts_images_beyond_the_resampled_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample(features(400, 8, 0, 0.3)), sample(features(400, 8, 1))
    metric = KID(subsets=1000, subset_size=10, bootstrap=200)
    whole = metric(x, y)
    monkeypatch.setattr("ganforge.evaluation.metrics.kid._BOOTSTRAP_ROWS", 100)
    part = metric(x, y)
    widths = [values["kid_high"] - values["kid_low"] for values in (whole, part)]
    assert widths[1] / widths[0] == pytest.approx(1, abs=0.3)


def test_the_prefix_names_the_figures() -> None:
    metric = KID(kernel="rbf", prefix="kid_rbf", bootstrap=2, subsets=2)
    assert list(metric.figures) == ["kid_rbf_mean", "kid_rbf_std", "kid_rbf_low", "kid_rbf_high"]
    x = sample(features(9, 4, 0))
    assert metric(x, x).keys() == metric.figures.keys()


def test_the_stamp_holds_what_changes_the_value() -> None:
    shared = {"subsets": 100, "subset_size": 1000, "bootstrap": 0}
    assert KID().parameters() == {"kernel": "poly", "degree": 3, "gamma": None, "coef0": 1.0, **shared}
    assert KID(kernel="rbf", prefix="kid_rbf").parameters() == {"kernel": "rbf", "sigma": 10.0, **shared}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel", "cubic"),
        ("subsets", 0),
        ("subset_size", 1),
        ("degree", 0),
        ("degree", 1.5),
        ("gamma", 0.0),
        ("gamma", float("nan")),
        ("sigma", -1.0),
        ("bootstrap", 1),
    ],
)
def test_impossible_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*{value}"):
        KID(**{name: value})
