"""FID against torch-fidelity, closed forms, and the error it states against the spread of fresh samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ganforge.evaluation.metrics.fid import (
    FID,
    bootstrap_distances,
    covariance_root,
    fid_of_real_subset,
    frechet_distance,
)
from ganforge.evaluation.sample import Sample, Statistics, feature_statistics


def features(rows: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    """Correlated, not negative and of unequal scales, as features of a network are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(width)) / width**0.5
    mixing *= torch.linspace(0.01, 2, width)
    return (torch.randn(rows, width, generator=generator) @ mixing + shift).relu()


def sample(values: Tensor) -> Sample:
    return Sample(count=len(values), features=values)


def theirs(generated: Tensor, real: Tensor) -> float:
    first, second = fid_features_to_statistics(generated), fid_features_to_statistics(real)
    return float(fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("n", "m", "width"),
    [(500, 400, 16), (200, 1000, 64), (40, 300, 64), (300, 40, 64), (20, 30, 64), (2, 2, 8), (100, 500, 300)],
    ids=lambda value: str(value),
)
def test_equals_torch_fidelity_of_regular_and_singular_covariances(
    n: int, m: int, width: int, seed: int
) -> None:
    x, y = features(n, width, seed, shift=0.3), features(m, width, seed + 100)
    assert FID()(sample(x), sample(y))["fid"] == pytest.approx(theirs(x, y), rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_torch_fidelity_of_float64_statistics(seed: int) -> None:
    random = np.random.RandomState(seed)
    first, second = (
        Statistics(random.randn(20), np.cov(random.randn(50, 20) * random.rand(20), rowvar=False))
        for _ in "ab"
    )
    expected = fid_statistics_to_metric(first._asdict(), second._asdict(), verbose=False)
    assert frechet_distance(first, second) == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)


@pytest.mark.parametrize("last", [0.25, 0.0], ids=["regular", "singular"])
def test_known_distance_of_two_gaussians(last: float) -> None:
    # Covariances that commute: |mu1 - mu2|² + the sum of (standard deviation 1 - standard deviation 2)².
    rotation = np.linalg.qr(np.random.RandomState(0).randn(3, 3))[0]
    first = Statistics(np.array([1.0, 2.0, 3.0]), rotation @ np.diag([1.0, 4.0, 9.0]) @ rotation.T)
    second = Statistics(np.array([1.0, 0.0, 0.0]), rotation @ np.diag([4.0, 4.0, last]) @ rotation.T)
    expected = 4 + 9 + 1 + 0 + (3 - last**0.5) ** 2
    # A variance of 0 comes out as 1e-16 or so, whose root is 1e-8: how far off depends on the processor.
    tolerance = 1e-9 if last else 1e-6
    assert frechet_distance(first, second) == pytest.approx(expected, rel=tolerance)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=tolerance)


def test_samples_of_known_gaussians_come_close_to_their_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50_000, 4, generator=generator) for _ in "ab")
    shift = torch.tensor([1.0, 0.0, -2.0, 0.0])
    assert FID()(sample(3 * x + shift), sample(y))["fid"] == pytest.approx(5 + 4 * 4, rel=0.02)


def test_equal_sets_are_at_distance_0() -> None:
    for rows in (200, 10):
        x = features(rows, 32, 5)
        assert FID()(sample(x), sample(x))["fid"] == pytest.approx(0, abs=1e-6)


def test_the_root_gives_the_covariance_back() -> None:
    sigma = feature_statistics(features(20, 50, 0)).sigma
    root = covariance_root(sigma)
    assert root.shape[1] == 50
    np.testing.assert_allclose(root.T @ root, sigma, atol=1e-12)
    assert len(covariance_root(np.zeros((3, 3)))) == 0


def test_constant_images_on_either_or_both_sides() -> None:
    x, constant = features(100, 8, 0), torch.full((10, 8), 2.0)
    expected = float((x.double().mean(0) - 2).square().sum() + x.double().var(0).sum())
    assert FID()(sample(constant), sample(x))["fid"] == pytest.approx(expected, rel=1e-6)
    assert FID()(sample(x), sample(constant))["fid"] == pytest.approx(expected, rel=1e-6)
    assert FID()(sample(constant), sample(constant + 1))["fid"] == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize("rows", [300, 20])
def test_statistics_of_a_file_give_what_features_give(rows: int) -> None:
    x, y = features(rows, 40, 0), features(rows, 40, 1, shift=0.2)
    from_features = FID()(sample(x), sample(y))["fid"]
    files = [
        Sample(count=rows, known_statistics=Statistics(s.mu.astype(np.float64), s.sigma.copy()))
        for s in (feature_statistics(x), feature_statistics(y))
    ]
    assert FID()(files[0], files[1]) == {"fid": pytest.approx(from_features, rel=1e-9)}
    assert FID()(sample(x), files[1])["fid"] == pytest.approx(from_features, rel=1e-9)


def test_needs_only_statistics() -> None:
    file = Sample(count=9, known_statistics=feature_statistics(features(9, 4, 0)))
    assert FID(bootstrap=5).lacks(file, file) is None
    assert FID(bootstrap=5)(file, file).keys() == {"fid"}
    assert "generated side has no statistics" in str(FID().lacks(Sample(count=9), file))
    assert "real side has no statistics" in str(FID().lacks(file, Sample(count=9)))


def test_real_halves_score_what_two_real_samples_do() -> None:
    real = features(2001, 16, 0)
    halves = FID()(sample(features(50, 16, 1)), sample(real))["fid_real_halves"]
    order = torch.randperm(2001, generator=torch.Generator().manual_seed(2026))
    exact = real.double()
    assert halves == pytest.approx(theirs(exact[order[:1000]], exact[order[1000:2000]]), rel=1e-6)
    fresh = theirs(features(1000, 16, 2), features(1000, 16, 3))
    assert 0.3 < halves / fresh < 3
    assert "fid_real_halves" not in FID()(sample(real[:5]), sample(real[:3]))


def test_fid_of_a_real_subset_shows_the_bias_of_few_images() -> None:
    real = sample(features(1000, 16, 0))
    few, more, most = (fid_of_real_subset(real, n) for n in (20, 100, 500))
    assert few > more > most > 0
    assert fid_of_real_subset(real, 10_000) == most
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(2026))
    assert real.features is not None
    expected = theirs(real.features[order[:100]], real.features[order[100:]])
    assert more == pytest.approx(expected, rel=1e-6)
    generated = theirs(features(100, 16, 7), real.features)
    assert 0.5 < more / generated < 2
    for n, source in ((1, real), (5, sample(features(3, 16, 0))), (5, Sample(count=9))):
        with pytest.raises(ValueError, match=f"no FID of {n}"):
            fid_of_real_subset(source, n)


@pytest.mark.parametrize(("shift", "narrowest", "widest"), [(0.3, 0.75, 1.35), (0.0, 0.75, 2.5)])
def test_the_interval_is_as_wide_as_the_spread_of_fresh_samples(
    shift: float, narrowest: float, widest: float
) -> None:
    real = sample(features(2000, 8, 0))
    metric, plain = FID(bootstrap=60), FID()
    spread = np.std([plain(sample(features(3000, 8, seed, shift)), real)["fid"] for seed in range(100, 200)])
    widths = []
    for seed in range(5):
        values = metric(sample(features(3000, 8, 1000 + seed, shift)), real)
        assert values["fid_high"] - values["fid"] == pytest.approx(values["fid"] - values["fid_low"])
        widths.append(values["fid_high"] - values["fid"])
    assert narrowest < np.mean(widths) / (1.96 * spread) < widest


def test_a_resample_is_the_fid_of_the_rows_drawn() -> None:
    x, y = features(50, 8, 0), features(80, 8, 1)
    statistics = feature_statistics(y)
    distance = bootstrap_distances(x, statistics, covariance_root(statistics.sigma), 1)[0]
    rows = torch.from_numpy(np.random.RandomState(2026).randint(50, size=50))
    assert distance == pytest.approx(theirs(x[rows], y), rel=1e-6)


@pytest.mark.parametrize("bootstrap", [-1, 1])
def test_impossible_bootstraps_are_refused(bootstrap: int) -> None:
    with pytest.raises(ValueError, match=f"bootstrap={bootstrap}"):
        FID(bootstrap=bootstrap)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="8 and 4"):
        FID()(sample(features(9, 8, 0)), sample(features(9, 4, 0)))
