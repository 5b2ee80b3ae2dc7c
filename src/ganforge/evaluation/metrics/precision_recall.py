"""Improved precision and recall: Kynkäänniemi et al. 2019 (1904.06991)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganforge.evaluation.metrics.distances import ROUNDING, distance_blocks, sample_radii, too_few_for
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample


class PrecisionRecall(Metric):
    """How much of each side lies within the other's neighbourhood, in [0, 1].

    A side's neighbourhood is the union of the closed balls around its features that reach to each one's k-th nearest
    neighbour of the same side.

    precision: share of the generated features in the real side's neighbourhood: how believable the images are.
    recall: share of the real features in the generated side's neighbourhood: how much of the variety is there.
    f_score: their harmonic mean, 0 when both are 0.

    Depends on the number of images of both sides: compare only equal numbers.

    Args:
        neighbourhood: k, at least 1; 3 in the paper. Each side has to have more features than that.
    """

    def __init__(self, neighbourhood: int = 3) -> None:
        if neighbourhood < 1:
            raise ValueError(f"neighbourhood={neighbourhood}: it has to be at least 1")
        self.neighbourhood = neighbourhood

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"precision": "higher", "recall": "higher", "f_score": "higher"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        return super().lacks(generated, real) or too_few_for(
            self.neighbourhood, generated=generated, real=real
        )

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.features is not None
        assert real.features is not None
        precision, recall = precision_and_recall(
            generated.features,
            real.features,
            sample_radii(generated, self.neighbourhood),
            sample_radii(real, self.neighbourhood),
        )
        f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"precision": precision, "recall": recall, "f_score": f_score}


def precision_and_recall(
    generated: Tensor, real: Tensor, generated_radii: Tensor, real_radii: Tensor
) -> tuple[float, float]:
    """Equations 1 and 2 of the paper, in one pass over the distances between the sides.

    Args:
        generated, real: float32 (N, D) and (M, D), on the CPU.
        generated_radii, real_radii: float64 (N,) and (M,): how far each feature's ball reaches.
    """
    generated_reach, real_reach = (radii.square() * (1 + ROUNDING) for radii in (generated_radii, real_radii))
    precise = torch.zeros(len(generated), dtype=torch.bool)
    recalled = torch.zeros(len(real), dtype=torch.bool)
    for rows, columns, squares in distance_blocks(generated, real):
        precise[rows] |= (squares <= real_reach[columns]).any(dim=1)
        recalled[columns] |= (squares <= generated_reach[rows, None]).any(dim=0)
    return float(precise.double().mean()), float(recalled.double().mean())
