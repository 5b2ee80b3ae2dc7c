"""What torchmetrics has as well is the same there: FID, KID, Inception Score; MS-SSIM has its own test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore as TheirScore
from torchmetrics.image.kid import poly_mmd

from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.sample import Sample

SEEDS = [0, 1, 2]


class Given(nn.Module):
    """An extractor that hands on what it is given: features come in the place of images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [20, 400])
def test_fid(n: int, seed: int) -> None:
    real, fake = normal(n, 24, seed), normal(n, 24, seed + 100, shift=0.4)
    theirs = FrechetInceptionDistance(feature=Given(24)).set_dtype(torch.float64)
    theirs.update(real.double(), real=True)
    theirs.update(fake.double(), real=False)
    ours = FID()(Sample(count=n, features=fake), Sample(count=n, features=real))
    # Theirs takes every mean in float64, torch-fidelity's (and ours) float32 ones.
    assert ours["fid"] == pytest.approx(float(theirs.compute()), rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_kid_of_all_rows(seed: int) -> None:
    real, fake = normal(120, 16, seed), normal(120, 16, seed + 100, shift=0.5)
    ours = KID(subsets=1)(Sample(count=120, features=fake), Sample(count=120, features=real))
    assert ours["kid_mean"] == pytest.approx(float(poly_mmd(fake.double(), real.double())), rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_inception_score_of_one_split(seed: int) -> None:
    logits = 3 * normal(200, 10, seed)
    theirs = TheirScore(feature=Given(10), splits=1)
    theirs.update(logits)
    mean, _ = theirs.compute()
    ours = InceptionScore(splits=1)(Sample(count=200, logits=logits), Sample(count=200))
    assert ours["inception_score"] == pytest.approx(float(mean), rel=1e-5)
