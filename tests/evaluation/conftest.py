"""Small data sets and evaluators that the evaluation tests share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ganforge.evaluation.digits import Digits
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.class_consistency import ClassConsistency
from ganforge.evaluation.metrics.density_coverage import DensityCoverage
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.metrics.metric import Metric
from ganforge.evaluation.metrics.mind import MIND
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.train_digits_classifier import digits_images


class Images:
    """uint8 images and labels in memory, as an evaluator sees a data set."""

    def __init__(self, images: Tensor, labels: Tensor, name: str = "digits", num_classes: int = 10) -> None:
        self.name = name
        self.images = images
        self.labels = labels
        self.shape = tuple(images.shape[1:])
        self.num_classes = num_classes
        self.class_names = [str(k) for k in range(num_classes)]
        self.split = None
        self.reads = 0

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        self.reads += len(indices)
        return self.images[indices]

    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()

    def generated(self, batch_size: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
        """The same images as a generator would give them."""
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            yield self.images[rows] / 127.5 - 1, self.labels[rows]


@pytest.fixture
def generator() -> torch.Generator:
    """Fresh randomness; the seed is printed where a test fails."""
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def random_images(generator: torch.Generator) -> Callable[..., Tensor]:
    """shape -> uint8 noise of that shape."""
    return lambda *shape: torch.randint(0, 256, shape, generator=generator).to(torch.uint8)


@pytest.fixture(scope="session")
def digits() -> Images:
    return Images(*digits_images())


@pytest.fixture(scope="session")
def halves(digits: Images) -> tuple[Images, Images]:
    """Two disjoint random halves of the digits."""
    order = torch.randperm(len(digits))
    first, second = order[:898], order[898:]
    return (
        Images(digits.images[first], digits.labels[first]),
        Images(digits.images[second], digits.labels[second]),
    )


def usual_metrics(kid_subset_size: int = 100) -> dict[str, Metric]:
    """What conf/metrics/compute/standard.yaml names, with small subsets."""
    return {
        "fid": FID(),
        "kid": KID(subset_size=kid_subset_size),
        "mind": MIND(projections=50),
        "inception_score": InceptionScore(),
        "precision_recall": PrecisionRecall(),
        "density_coverage": DensityCoverage(),
        "class_consistency": ClassConsistency(),
    }


@pytest.fixture
def make_evaluator(tmp_path: Path) -> Callable[..., FeatureEvaluator]:
    """A `digits` evaluator whose cache lives in the test's own folder."""

    def make(**arguments: object) -> FeatureEvaluator:
        defaults: dict[str, object] = {
            "num_samples": 100,
            "final_num_samples": 100,
            "compute": usual_metrics(int(str(arguments.pop("kid_subset_size", 100)))),
            "cache_dir": str(tmp_path / "c"),
        }
        return FeatureEvaluator(Digits(), **(defaults | arguments))  # type: ignore[arg-type]

    return make
