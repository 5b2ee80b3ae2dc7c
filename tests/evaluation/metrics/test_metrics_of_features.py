"""What every metric of features has to do: hold on odd input, follow damage, see collapse, keep its memory small."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ganforge.evaluation.metrics.class_consistency import ClassConsistency
from ganforge.evaluation.metrics.density_coverage import DensityCoverage
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.metrics.intra_class_fid import IntraClassFID
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.metrics.metric import Metric
from ganforge.evaluation.metrics.mind import MIND
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.sample import Sample

METRICS: list[Metric] = [
    FID(),
    FID(bootstrap=3),
    KID(subsets=5, subset_size=50),
    KID(subsets=5, subset_size=40),
    KID(subsets=5, subset_size=50, degree=2),
    KID(kernel="rbf", prefix="kid_rbf", subsets=5, bootstrap=3),
    KID(kernel="rbf", prefix="kid_rbf", subsets=5, sigma=2.0),
    InceptionScore(),
    PrecisionRecall(),
    PrecisionRecall(12),
    DensityCoverage(),
    DensityCoverage(3),
    MIND(100),
    MIND(100, seed=1),
    MIND(50),
    IntraClassFID(10),
    ClassConsistency(),
]
every_metric = pytest.mark.parametrize(
    "metric", METRICS, ids=lambda metric: f"{type(metric).__name__}{list(metric.parameters().values())}"
)


def sample(rows: int, seed: int, width: int = 8, shift: float = 0.0) -> Sample:
    """Features around their class's number, in every attribute that a metric here may ask for."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    features = torch.randn(rows, width, generator=generator) + labels[:, None] + shift
    logits = torch.randn(rows, 3, generator=generator)
    return Sample(count=rows, features=features, logits=logits, labels=labels, classifies=True)


def ordered(source: Sample, rows: Tensor) -> Sample:
    assert source.features is not None
    assert source.logits is not None
    assert source.labels is not None
    return Sample(
        count=len(rows),
        features=source.features[rows],
        logits=source.logits[rows],
        labels=source.labels[rows],
        classifies=True,
    )


@every_metric
def test_gives_the_figures_it_names(metric: Metric) -> None:
    generated, real = sample(80, 0), sample(100, 1)
    assert metric.lacks(generated, real) is None
    values = metric(generated, real)
    assert list(values) == list(metric.figures)
    assert all(type(value) is float and math.isfinite(value) for value in values.values())


def test_metrics_that_share_a_real_sample_give_what_each_gives_alone() -> None:
    real = sample(100, 1)
    for seed, rows in ((0, 80), (5, 80), (0, 60)):
        for metric in METRICS:
            alone = metric(sample(rows, seed), sample(100, 1))
            assert metric(sample(rows, seed), real) == pytest.approx(alone, rel=1e-12)


@every_metric
def test_leaves_its_samples_and_the_global_generators_alone(metric: Metric) -> None:
    generated, real = sample(80, 0), sample(100, 1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index,union-attr]
    metric(generated, real)
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # type: ignore[index]
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert torch.equal(before[2], after[2])
    for kept, fresh in ((generated, sample(80, 0)), (real, sample(100, 1))):
        for name in ("features", "logits", "labels"):
            assert torch.equal(getattr(kept, name), getattr(fresh, name))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "metric",
    [
        FID(),
        KID(subsets=2),
        InceptionScore(1),
        PrecisionRecall(),
        DensityCoverage(),
        MIND(50),
        IntraClassFID(10),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_the_order_of_images_does_not_matter(metric: Metric, seed: int) -> None:
    generated, real = sample(80, seed), sample(80, seed + 10, shift=0.5)
    generator = torch.Generator().manual_seed(seed)
    mixed = [ordered(side, torch.randperm(80, generator=generator)) for side in (generated, real)]
    values, other = metric(generated, real), metric(mixed[0], mixed[1])
    for name in values.keys() - {"fid_real_halves", "kid_std"}:
        assert other[name] == pytest.approx(values[name], rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        (FID(), "fid"),
        (KID(subsets=5), "kid_mean"),
        (KID(kernel="rbf", subsets=5), "kid_mean"),
        (MIND(100), "mind"),
        (IntraClassFID(10), "intra_fid_mean"),
        (PrecisionRecall(), "precision"),
        (DensityCoverage(), "density"),
        (DensityCoverage(), "coverage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_more_noise_is_worse(metric: Metric, figure: str) -> None:
    real, clean = sample(600, 0), sample(600, 1)
    assert clean.features is not None
    noise = torch.randn(clean.features.shape, generator=torch.Generator().manual_seed(2))
    values = []
    for amount in (0.0, 1.0, 2.0, 4.0):
        noisy = Sample(count=600, features=clean.features + amount * noise, labels=clean.labels)
        values.append(metric(noisy, real)[figure])
    assert values == sorted(values, reverse=metric.figures[figure] == "higher")
    assert values[0] != values[1]


@every_metric
@pytest.mark.parametrize("which", ["generated", "real", "both"])
def test_constant_images_have_finite_figures(metric: Metric, which: str) -> None:
    generated, real = sample(60, 0), sample(70, 1)
    constant = torch.zeros(60, dtype=torch.int64)
    if which != "real":
        generated = ordered(generated, constant)
    if which != "generated":
        real = ordered(real, constant)
    generated.labels, real.labels = (
        torch.zeros(60, dtype=torch.int64),
        torch.zeros(len(real.features), dtype=torch.int64),
    )  # type: ignore[arg-type]
    assert all(math.isfinite(value) for value in metric(generated, real).values())


@pytest.mark.parametrize("rows", [4, 7])
@pytest.mark.parametrize("width", [2, 300])
@every_metric
def test_a_handful_of_images_gives_figures_or_a_reason(metric: Metric, rows: int, width: int) -> None:
    generated, real = sample(rows, 0, width), sample(rows, 1, width)
    if metric.lacks(generated, real) is None:
        assert all(math.isfinite(value) for value in metric(generated, real).values())
    else:
        assert isinstance(metric, IntraClassFID) or metric.parameters()["neighbourhood"] >= rows


def test_collapse_to_modes_of_a_grid_is_ranked() -> None:
    centres = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))

    def grid(modes: int, seed: int) -> Sample:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(25, generator=generator)[:modes]
        rows = chosen[torch.arange(2500) % modes]
        points = centres[rows] + 0.05 * torch.randn(2500, 2, generator=generator)
        return Sample(count=2500, features=points)

    real = grid(25, 0)
    recalls, coverages, distances = [], [], []
    for modes in (1, 3, 5, 25):
        generated = grid(modes, modes)
        recalls.append(PrecisionRecall()(generated, real)["recall"])
        coverages.append(DensityCoverage()(generated, real)["coverage"])
        distances.append(MIND(100)(generated, real)["mind"])
    assert recalls == pytest.approx([0.04, 0.12, 0.2, 1], abs=0.06)
    assert coverages == pytest.approx([0.04, 0.12, 0.2, 1], abs=0.06)
    assert recalls == sorted(recalls)
    assert coverages == sorted(coverages)
    assert distances[3] == min(distances)


def extra_bytes(compute: Callable[[], object]) -> int:
    """How far the process's resident memory rises above where it was, at its peak."""

    def read(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    except OSError:
        pytest.skip("no measure of the peak memory here")
    before = read("VmRSS")
    compute()
    return read("VmHWM") - before


@pytest.mark.parametrize(
    ("metric", "megabytes"),
    [(FID(), 60), (KID(subsets=2), 60), (PrecisionRecall(), 100), (DensityCoverage(), 100), (MIND(200), 60)],
    ids=lambda value: type(value).__name__ if isinstance(value, Metric) else "",
)
def test_memory_stays_small(metric: Metric, megabytes: int) -> None:
    metric(sample(20, 2), sample(20, 3))  # what libraries load on first use
    generated, real = sample(5000, 0, 512), sample(5000, 1, 512)
    # All pairs of one side in float64 are 200 MB.
    assert extra_bytes(lambda: metric(generated, real)) < megabytes * 2**20
