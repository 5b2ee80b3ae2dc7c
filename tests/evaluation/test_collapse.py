"""Collapse is seen: generators of fewer and fewer modes are ranked rightly by the figures of variety."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from ganforge.datasets.gaussians import gaussian_grid
from ganforge.evaluation.evaluator import batches_of
from ganforge.evaluation.metrics.density_coverage import DensityCoverage
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.mixture import MixtureEvaluator
from ganforge.evaluation.sample import Sample
from ganforge.evaluation.train_digits_classifier import digits_images

MODES = (1, 3, 5)


@pytest.fixture
def seed() -> int:
    chosen = random.randrange(2**32)
    print(f"seed {chosen}")
    return chosen


def digits_of(classes: Tensor, number: int, images: Tensor, labels: Tensor, noise: torch.Generator) -> Tensor:
    """`number` images of these classes alone: the real ones, repeated, each with its own little noise."""
    rows = torch.isin(labels, classes).nonzero().flatten()
    chosen = rows[torch.randint(len(rows), (number,), generator=noise)]
    shaken = images[chosen].float() + 8 * torch.randn(number, *images.shape[1:], generator=noise)
    return shaken.round().clamp(0, 255).to(torch.uint8)


def test_digits_of_fewer_classes_score_lower(seed: int, make_evaluator: object, digits: object) -> None:
    """By recall and coverage, and by FID; what there is looks real all the same, so precision stays high."""
    noise = torch.Generator().manual_seed(seed)
    images, labels = digits_images()
    order = torch.randperm(10, generator=noise)
    evaluator = make_evaluator()  # type: ignore[operator]
    evaluator.prepare(digits, "cpu")
    scores = {}
    for modes in (*MODES, 10):
        fakes = digits_of(order[:modes], 1000, images, labels, noise)
        batches = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in fakes.split(250)]
        scores[modes] = evaluator.evaluate(batches, conditional=False)
    for fewer, more in zip((1, 3, 5), (3, 5, 10), strict=True):
        for figure in ("recall", "coverage", "inception_score"):
            assert scores[fewer][figure] < scores[more][figure], (figure, fewer, more)
        for figure in ("fid", "kid_mean", "mind"):
            assert scores[fewer][figure] > scores[more][figure], (figure, fewer, more)
    assert min(figures["precision"] for figures in scores.values()) > 0.7
    # Coverage is about the share of the data that has the modes; classes are equally frequent.
    for modes in MODES:
        assert scores[modes]["coverage"] < modes / 10 + 0.05
    assert scores[1]["recall"] < 0.35 < scores[10]["recall"]


def points_at(modes: Tensor, number: int, std: float, noise: torch.Generator) -> Tensor:
    """`number` points of the given modes (K, 2), in equal parts."""
    centres = modes[torch.arange(number) % len(modes)]
    return centres + std * torch.randn(number, 2, generator=noise)


def distance_to_modes(points: Tensor, modes: Tensor, std: float) -> float:
    """The Fréchet distance of these points (N, 2) to the mixture itself, whose moments are known: with means m and n,
    |m - n|^2 + tr(C) + tr(D) - 2 tr((C D)^(1/2)), where tr(S^(1/2))^2 = tr(S) + 2 det(S)^(1/2) for 2x2 matrices."""
    points, modes = points.double(), modes.double()
    between = modes - modes.mean(0)
    mixture = between.T @ between / len(modes) + std**2 * torch.eye(2, dtype=torch.float64)
    cov = points.T.cov()
    product = cov @ mixture
    root = (product.trace() + 2 * torch.linalg.det(product).clamp(min=0).sqrt()).sqrt()
    return float((points.mean(0) - modes.mean(0)).square().sum() + cov.trace() + mixture.trace() - 2 * root)


def test_points_of_fewer_modes_are_counted(seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    grid = gaussian_grid()
    evaluator = MixtureEvaluator()
    evaluator.prepare(grid, "cpu")
    order = torch.randperm(25, generator=noise)
    scores = {}
    for modes in (*MODES, 25):
        points = points_at(grid.centres[order[:modes]], 2500, grid.std, noise)
        batches = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in points.split(500)]
        scores[modes] = evaluator.evaluate(batches, conditional=False)
        assert scores[modes]["modes_covered"] == modes
        assert scores[modes]["high_quality"] == pytest.approx(1 - torch.tensor(-4.5).exp().item(), abs=0.01)
        expected = torch.tensor(25 / modes).log().item()
        assert scores[modes]["reverse_kl"] == pytest.approx(expected, abs=0.01)
    ranked = [scores[modes]["reverse_kl"] for modes in (*MODES, 25)]
    assert ranked == sorted(ranked, reverse=True)


def test_points_as_features_show_the_same_by_recall_and_coverage(seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    grid = gaussian_grid(size=2000, seed=seed % 1000)
    real = Sample(count=2000, features=torch.cat([points for points, _ in batches_of(grid)]))
    order = torch.randperm(25, generator=noise)
    scores: dict[int, dict[str, float]] = {}
    for modes in (*MODES, 25):
        features = points_at(grid.centres[order[:modes]], 2000, grid.std, noise)
        generated = Sample(count=2000, features=features)
        scores[modes] = {}
        for metric in (PrecisionRecall(), DensityCoverage(), FID()):
            assert metric.lacks(generated, real) is None
            scores[modes] |= metric(generated, real)
    for fewer, more in zip((1, 3, 5), (3, 5, 25), strict=True):
        assert scores[fewer]["recall"] < scores[more]["recall"]
        assert scores[fewer]["coverage"] < scores[more]["coverage"]
    assert real.features is not None
    nearest = torch.cdist(real.features, grid.centres).argmin(1)
    for modes in MODES:  # a mode has about 4% of the data, and nothing of another one is near
        share = torch.isin(nearest, order[:modes]).double().mean().item()
        assert scores[modes]["recall"] == pytest.approx(share, abs=0.03)
        assert scores[modes]["coverage"] == pytest.approx(share, abs=0.03)
        assert scores[modes]["precision"] > 0.8  # 0.96 +- 0.02 for the 80 real points of one mode
    assert scores[25]["recall"] > 0.9
    for modes in (*MODES, 25):
        expected = distance_to_modes(real.features, grid.centres[order[:modes]], grid.std)
        assert scores[modes]["fid"] == pytest.approx(expected, rel=5e-3, abs=0.05)
    # The mean of 2,000 points is off by chance: by 0.008 in the square on average, over 0.2 once in 10^10 times.
    assert scores[25]["fid"] < 0.2 < 10 < scores[1]["fid"]
