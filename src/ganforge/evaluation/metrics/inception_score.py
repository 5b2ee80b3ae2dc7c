"""Inception Score: Salimans et al. 2016, "Improved Techniques for Training GANs" (1606.03498)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample

_SEED = 2020  # torch-fidelity's
_BLOCK = 4096


class InceptionScore(Metric):
    """exp of the mean of KL(p(class|image) || p(class)), over the generated images alone.

    inception_score, inception_score_std: mean and standard deviation over the splits. From 1, when every image gets
    the same classes, to the number of classes, when each image is of one certain class and all classes are as
    frequent. Blind to everything within a class, and to the real images.

    Args:
        splits: parts of the images, in a fixed random order, that are scored apart: at least 1; lowered to the number
            of images. A part with few images scores lower: compare only equal numbers.
    """

    generated_needs = ("logits",)
    real_needs = ()

    def __init__(self, splits: int = 10) -> None:
        if splits < 1:
            raise ValueError(f"splits={splits}: it has to be at least 1")
        self.splits = splits

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"inception_score": "higher", "inception_score_std": "neither"}

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        logits = generated.logits
        assert logits is not None
        splits = min(self.splits, len(logits))
        order = torch.from_numpy(np.random.RandomState(_SEED).permutation(len(logits)))
        bounds = [i * len(logits) // splits for i in range(splits + 1)]
        scores = [inception_score(logits, order[bounds[i] : bounds[i + 1]]) for i in range(splits)]
        return {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}


def inception_score(logits: Tensor, rows: Tensor) -> float:
    """exp(H(mean of p) - mean of H(p)) with p the softmax of these rows of logits: the KL form of the paper.

    Args:
        logits: float32 (N, K).
        rows: int64 (n,), n >= 1.
    """
    mean = torch.zeros(logits.shape[1], dtype=torch.float64)
    negative_entropy = 0.0
    for block in torch.split(rows, _BLOCK):
        log_p = logits[block].double().log_softmax(dim=1)
        p = log_p.exp()
        mean += p.sum(dim=0) / len(rows)
        negative_entropy += float((p * log_p).sum()) / len(rows)
    return float(np.exp(float(torch.special.entr(mean).sum()) + negative_entropy))
