"""Intra-class FID: Miyato & Koyama 2018, "cGANs with Projection Discriminator" (1802.05637), section 4."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganforge.evaluation.metrics.fid import frechet_distance
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample, feature_statistics


class IntraClassFID(Metric):
    """FID of each class's generated images against the same class's real ones.

    intra_fid_mean, intra_fid_worst: mean and highest value over the classes with enough images on both sides; other
    classes do not count. A class that a conditional generator has collapsed shows here and not in FID.

    A class has few images: with n of them, FID lies far above its limit until n is many times the number of features
    D, and a class with fewer images scores higher for that alone. Compare runs with the same numbers of images a
    class, and no value with a FID of all classes.

    Args:
        fewest_per_class: images of a class that either side has to have for the class to count, at least 2.
    """

    generated_needs = ("features", "labels")
    real_needs = ("features", "labels")

    def __init__(self, fewest_per_class: int = 50) -> None:
        if fewest_per_class < 2:
            raise ValueError(f"fewest_per_class={fewest_per_class}: it has to be at least 2")
        self.fewest_per_class = fewest_per_class

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"intra_fid_mean": "lower", "intra_fid_worst": "lower"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        lack = super().lacks(generated, real)
        if lack is None and not self._classes(generated, real):
            lack = f"no class has {self.fewest_per_class} images on both sides"
        return lack

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        distances = [
            frechet_distance_of_features(_of_class(generated, c), _of_class(real, c))
            for c in self._classes(generated, real)
        ]
        return {"intra_fid_mean": float(np.mean(distances)), "intra_fid_worst": max(distances)}

    def _classes(self, generated: Sample, real: Sample) -> list[int]:
        """Those with enough images on both sides."""
        enough = []
        for sample in (generated, real):
            assert sample.labels is not None
            classes, counts = torch.unique(sample.labels, return_counts=True)
            enough.append(set(classes[counts >= self.fewest_per_class].tolist()))
        return sorted(enough[0] & enough[1])


def frechet_distance_of_features(first: Tensor, second: Tensor) -> float:
    """FID of two sets of features, float32 (n, D) and (m, D), n and m >= 2.

    With X and Y the centred features over √(n - 1) and √(m - 1), Tr (sigma1 sigma2)^½ is the sum of the singular values
    of X Yᵀ: faster than by way of the covariances, and exact, where there are fewer images than features.
    """
    if max(len(first), len(second)) >= first.shape[1]:
        return frechet_distance(feature_statistics(first), feature_statistics(second))
    (mu1, x), (mu2, y) = _centred(first), _centred(second)
    traces = float(np.square(x).sum() + np.square(y).sum())
    cross = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    return float((mu1 - mu2) @ (mu1 - mu2)) + traces - 2 * cross


def _centred(features: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and (features - mean) / √(n - 1), (n, D)."""
    values = features.numpy().astype(np.float64)
    mu = values.mean(axis=0)
    return mu, (values - mu) / np.sqrt(len(values) - 1)


def _of_class(sample: Sample, label: int) -> Tensor:
    assert sample.features is not None
    assert sample.labels is not None
    return sample.features[torch.nonzero(sample.labels == label)[:, 0]]
