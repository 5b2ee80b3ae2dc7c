"""FID, KID, Inception Score, precision and recall by torch-fidelity, on features extracted once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import mmd2
from torch_fidelity.metric_prc import (
    KEY_METRIC_F_SCORE,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from ganforge.evaluation.reference import Reference, frechet_distance

NEIGHBOURHOOD = 3
FEWEST_SAMPLES = NEIGHBOURHOOD + 1
_SPLITS = 10
_KID_SUBSETS, _KID_SEED = 100, 2020  # torch-fidelity's
_LARGE = 10_000  # above this the distances of precision and recall are computed block by block


def distribution_figures(
    features: Tensor, logits: Tensor, reference: Reference, kid_subset_size: int = 1000
) -> dict[str, float]:
    """All figures of one set of generated samples.

    FID (Heusel et al. 2017); KID (Bińkowski et al. 2018): mean and standard deviation over 100 subsets of the
    unbiased MMD² with kernel (x·y/D + 1)³; Inception Score (Salimans et al. 2016) over 10 splits; improved
    precision and recall (Kynkäänniemi et al. 2019) with balls that reach to the third neighbour.

    Args:
        features: float32 (N, D), N >= 4, on the CPU.
        logits: float32 (N, K), on the CPU.
        reference: the real side.
        kid_subset_size: lowered to the number of samples where there are fewer.
    """
    smaller = min(len(features), len(reference.features))
    inception_score = isc_features_to_metric(logits, splits=min(_SPLITS, len(logits)))
    kid_mean, kid_std = kernel_distance(features, reference.features, min(kid_subset_size, smaller))
    large = max(len(features), len(reference.features)) > _LARGE
    prc = prc_features_to_metric(
        features,
        reference.features,
        prc_neighborhood=NEIGHBOURHOOD,
        prc_batch_size=2000 if large else _LARGE,
        save_cpu_ram=large,
        verbose=False,
    )
    return {
        "fid": frechet_distance(fid_features_to_statistics(features), reference.statistics),
        "fid_real_halves": reference.fid_real_halves,
        "kid_mean": kid_mean,
        "kid_std": kid_std,
        "inception_score": inception_score[KEY_METRIC_ISC_MEAN],
        "inception_score_std": inception_score[KEY_METRIC_ISC_STD],
        "precision": prc[KEY_METRIC_PRECISION],
        "recall": prc[KEY_METRIC_RECALL],
        "f_score": prc[KEY_METRIC_F_SCORE],
    }


def kernel_distance(generated: Tensor, real: Tensor, subset_size: int) -> tuple[float, float]:
    """KID, Bińkowski et al. 2018, equation 4: mean and standard deviation of the MMD² over 100 subsets.

    torch-fidelity's subsets and estimator; only the kernel's cube is two products instead of a power, which
    otherwise takes nine tenths of an evaluation with a small extractor.

    Args:
        generated: float32 (N, D), on the CPU.
        real: float32 (M, D), on the CPU.
        subset_size: at least 2, at most N and M.
    """
    x, y = generated.numpy(), real.numpy()
    random = np.random.RandomState(_KID_SEED)
    distances = np.zeros(_KID_SUBSETS)
    for i in range(_KID_SUBSETS):
        a = x[random.choice(len(x), subset_size, replace=False)]
        b = y[random.choice(len(y), subset_size, replace=False)]
        distances[i] = mmd2(_cubic_kernel(a, a), _cubic_kernel(a, b), _cubic_kernel(b, b))
    return float(distances.mean()), float(distances.std())


def _cubic_kernel(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """(x·y/D + 1)³ of all pairs of rows, float32 (n, m)."""
    kernel: NDArray[np.float32] = np.matmul(x, y.T)
    kernel *= 1.0 / x.shape[1]
    kernel += 1
    square = kernel * kernel
    kernel *= square
    return kernel


def class_consistency(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose most likely class, by logits (N, K), is the label asked for, int64 (N,)."""
    return float((logits.argmax(dim=1) == labels).double().mean())
