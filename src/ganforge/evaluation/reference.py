"""The real side of every comparison: features of the real images, or what is kept of them in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

STATE_BYTES = 16 * 2**20
_SEED = 2026

Statistics = dict[str, NDArray[Any]]
"""mu (D,) and sigma float64 (D, D), as torch-fidelity computes them."""


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """|mu1 - mu2|² + Tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^½): Heusel et al. 2017, equation 6."""
    return float(fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID])


@dataclass
class Reference:
    """Real images as the extractor saw them.

    Attributes:
        features: float32 (M, D): of all `count` images, or of a random subset that fits in a checkpoint.
        statistics: mean and covariance over all `count` images.
        count: number of real images.
        fid_real_halves: FID between two random halves of them, the scale on which to read a FID.
        source: the data set's name.
        fingerprint: the data set's fingerprint.
        weights_hash: of the extractor.
        classifies: whether the extractor's classes are the data's labels.
    """

    features: Tensor
    statistics: Statistics
    count: int
    fid_real_halves: float
    source: str
    fingerprint: str
    weights_hash: str
    classifies: bool

    @classmethod
    def of(cls, features: Tensor, **origin: Any) -> Reference:
        """From the features of all real images; `origin`: source, fingerprint, weights_hash, classifies."""
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(_SEED))
        half = len(features) // 2
        first, second = (
            fid_features_to_statistics(features[rows]) for rows in (order[:half], order[half : 2 * half])
        )
        return cls(
            features=features,
            statistics=fid_features_to_statistics(features),
            count=len(features),
            fid_real_halves=frechet_distance(first, second),
            **origin,
        )

    @property
    def complete(self) -> bool:
        return len(self.features) == self.count

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, at most 16 MB of features, with statistics if some are left out."""
        state: dict[str, Any] = {
            "features": self.features,
            "count": self.count,
            "fid_real_halves": self.fid_real_halves,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "weights_hash": self.weights_hash,
            "classifies": self.classifies,
        }
        kept = STATE_BYTES // (self.features.shape[1] * self.features.element_size())
        if self.complete and self.count <= kept:
            return state
        order = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(_SEED))
        sigma = self.statistics["sigma"]
        return state | {
            "features": self.features[order[:kept].sort().values],
            "mu": torch.from_numpy(self.statistics["mu"]),
            "sigma_triangle": torch.from_numpy(
                sigma[np.triu_indices(len(sigma))]
            ),  # symmetric: half the bytes
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reference:
        values = dict(state)
        if "mu" in values:
            mu, triangle = values.pop("mu").numpy(), values.pop("sigma_triangle").numpy()
            sigma = np.zeros((len(mu), len(mu)))
            sigma[np.triu_indices(len(mu))] = triangle
            statistics = {"mu": mu, "sigma": np.triu(sigma) + np.triu(sigma, 1).T}
        else:
            statistics = fid_features_to_statistics(values["features"])
        return cls(statistics=statistics, **values)
