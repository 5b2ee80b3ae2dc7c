"""Inception Score against torch-fidelity and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from ganforge.evaluation.metrics import inception_score as module
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.sample import Sample

REAL = Sample(count=0)


def score(logits: Tensor, splits: int = 10) -> dict[str, float]:
    return InceptionScore(splits)(Sample(count=len(logits), logits=logits), REAL)


@pytest.mark.parametrize("block", [16, 4096])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("rows", "splits"), [(1000, 10), (103, 10), (50, 1), (4, 10)])
def test_equals_torch_fidelity(
    rows: int, splits: int, seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    logits = 3 * torch.randn(rows, 20, generator=torch.Generator().manual_seed(seed))
    theirs = isc_features_to_metric(logits, splits=min(splits, rows))
    assert score(logits, splits) == pytest.approx(
        {
            "inception_score": theirs["inception_score_mean"],
            "inception_score_std": theirs["inception_score_std"],
        },
        rel=1e-9,
        abs=1e-12,
    )


def test_limits() -> None:
    certain = 1000 * torch.eye(7).repeat(100, 1)
    assert score(certain, splits=1)["inception_score"] == pytest.approx(7)
    assert score(certain[:1].expand(50, -1))["inception_score"] == pytest.approx(1)
    assert score(torch.zeros(50, 7))["inception_score"] == pytest.approx(1)
    unsure_of_two = torch.tensor([[5.0, 5, -1e9, -1e9], [-1e9, -1e9, 5, 5]]).repeat(50, 1)
    assert score(unsure_of_two, splits=1)["inception_score"] == pytest.approx(2)


def test_order_does_not_matter_without_splits() -> None:
    logits = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    flipped = score(logits.flip(0), splits=1)["inception_score"]
    assert score(logits, splits=1)["inception_score"] == pytest.approx(flipped, rel=1e-12)


def test_needs_logits_alone() -> None:
    assert InceptionScore().lacks(Sample(count=9, logits=torch.zeros(9, 2)), REAL) is None
    lack = InceptionScore().lacks(Sample(count=9, features=torch.zeros(9, 2)), REAL)
    assert lack == "the generated side has no logits"


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="splits=0"):
        InceptionScore(0)
