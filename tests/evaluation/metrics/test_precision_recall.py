"""Precision and recall against torch-fidelity, float64 differences, and sets whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from ganforge.evaluation.metrics import distances
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.sample import Sample


def normal(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def sample(values: Tensor) -> Sample:
    return Sample(count=len(values), features=values)


def figures(generated: Tensor, real: Tensor, neighbourhood: int = 3) -> dict[str, float]:
    return PrecisionRecall(neighbourhood)(sample(generated), sample(real))


@pytest.mark.parametrize("block", [50, 1024])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("n", "m", "width", "k"), [(300, 400, 8, 3), (120, 333, 64, 5), (4, 5, 2, 3), (200, 90, 2, 1)]
)
def test_equals_torch_fidelity(
    n: int, m: int, width: int, k: int, seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "_BLOCK", block)
    x, y = 0.8 * normal(n, width, seed) + 0.3, normal(m, width, seed + 100)
    values = figures(x, y, k)
    for save_cpu_ram in (False, True):
        theirs = prc_features_to_metric(
            x, y, prc_neighborhood=k, prc_batch_size=64, save_cpu_ram=save_cpu_ram, verbose=False
        )
        assert values == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_float64_differences(seed: int) -> None:
    x, y = normal(60, 3, seed).double(), normal(50, 3, seed + 100).double() + 0.5
    between = (x[:, None] - y[None]).norm(dim=2)
    reach_x, reach_y = ((a[:, None] - a[None]).norm(dim=2).sort(dim=1).values[:, 3] for a in (x, y))
    values = figures(x.float(), y.float())
    assert values["precision"] == pytest.approx(float((between <= reach_y).any(1).double().mean()))
    assert values["recall"] == pytest.approx(float((between <= reach_x[:, None]).any(0).double().mean()))


@pytest.mark.parametrize("width", [2, 512])
def test_equal_sets_and_sets_apart(width: int) -> None:
    x = normal(100, width, 0)
    assert figures(x, x) == {"precision": 1, "recall": 1, "f_score": 1}
    assert figures(x[:50], x[:50] + 1000) == {"precision": 0, "recall": 0, "f_score": 0}


def test_copies_of_real_images_are_precise_even_among_equal_ones() -> None:
    real = normal(5, 300, 0).repeat(20, 1)  # every ball has radius 0
    assert figures(real[:10], real)["precision"] == 1
    assert figures(real[:1].expand(10, -1), real) == pytest.approx(
        {"precision": 1, "recall": 0.2, "f_score": 2 * 0.2 / 1.2}
    )


def test_one_constant_image() -> None:
    real = normal(100, 8, 0)
    constant = real[3].expand(20, -1)
    assert figures(constant, real)["precision"] == 1
    assert figures(constant, real)["recall"] == pytest.approx(0.01)
    assert figures(torch.full((20, 8), 50.0), real) == {"precision": 0, "recall": 0, "f_score": 0}


def test_needs_more_features_than_neighbours() -> None:
    four, three = sample(normal(4, 2, 0)), Sample(count=9, features=normal(3, 2, 0))
    assert PrecisionRecall(3).lacks(four, four) is None
    assert "generated side has 3 features" in str(PrecisionRecall(3).lacks(three, four))
    assert "real side has 3 features" in str(PrecisionRecall(3).lacks(four, three))
    assert "no features" in str(PrecisionRecall(3).lacks(Sample(count=9), four))


def test_impossible_neighbourhoods_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbourhood=0"):
        PrecisionRecall(0)
