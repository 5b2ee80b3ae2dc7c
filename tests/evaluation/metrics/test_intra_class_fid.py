"""FID class by class against torch-fidelity of each class alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ganforge.evaluation.metrics.intra_class_fid import IntraClassFID, frechet_distance_of_features
from ganforge.evaluation.sample import Sample


def features(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).relu()


def theirs(x: Tensor, y: Tensor) -> float:
    first, second = fid_features_to_statistics(x), fid_features_to_statistics(y)
    return float(fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"])


def labelled(counts: list[int], width: int, seed: int) -> Sample:
    """counts[c] features of class c, around c, in a mixed order."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    values = features(len(labels), width, seed) + labels[:, None]
    return Sample(count=len(labels), features=values, labels=labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("n", "m"), [(20, 30), (30, 20), (2, 2), (20, 200), (200, 200), (64, 64)])
def test_of_features_equals_torch_fidelity(n: int, m: int, seed: int) -> None:
    x, y = features(n, 64, seed) + 0.1, features(m, 64, seed + 100)
    assert frechet_distance_of_features(x, y) == pytest.approx(theirs(x, y), rel=1e-6)


@pytest.mark.parametrize("width", [4, 128])
def test_mean_and_worst_over_the_classes_with_enough_images(width: int) -> None:
    generated, real = labelled([40, 30, 50, 3, 60], width, 0), labelled([40, 50, 20, 40, 2], width, 1)
    expected = []
    for label in (0, 1, 2):
        x, y = (s.features[s.labels == label] for s in (generated, real))  # type: ignore[index]
        expected.append(theirs(x, y))
    values = IntraClassFID(fewest_per_class=20)(generated, real)
    assert values["intra_fid_mean"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert values["intra_fid_worst"] == pytest.approx(max(expected), rel=1e-6)


def test_sees_one_class_collapsed_and_classes_exchanged() -> None:
    real, good = labelled([100] * 4, 8, 0), labelled([100] * 4, 8, 1)
    metric = IntraClassFID()
    base = metric(good, real)
    assert good.features is not None
    assert good.labels is not None
    collapsed = good.features.clone()
    collapsed[good.labels == 2] = collapsed[good.labels == 2][0]
    values = metric(Sample(count=400, features=collapsed, labels=good.labels), real)
    assert values["intra_fid_mean"] > base["intra_fid_mean"]
    assert values["intra_fid_worst"] > 3 * base["intra_fid_worst"]
    exchanged = metric(Sample(count=400, features=good.features, labels=(good.labels + 1) % 4), real)
    assert exchanged["intra_fid_mean"] > 10 * base["intra_fid_mean"]


def test_needs_labels_and_enough_images_of_a_class() -> None:
    real, few = labelled([60, 10], 4, 0), labelled([10, 60], 4, 1)
    assert IntraClassFID(50).lacks(real, few) == "no class has 50 images on both sides"
    assert IntraClassFID(10).lacks(real, few) is None
    assert (
        IntraClassFID(10).lacks(Sample(count=70, features=real.features), real)
        == "the generated side has no labels"
    )
    with pytest.raises(ValueError, match="fewest_per_class=1"):
        IntraClassFID(1)
