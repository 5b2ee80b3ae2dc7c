"""Density and coverage: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models"."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganforge.evaluation.metrics.distances import ROUNDING, distance_blocks, sample_radii, too_few_for
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample


class DensityCoverage(Metric):
    """Equations 3 and 4 of the paper (arXiv 2002.09797): like precision and recall, but of real balls alone.

    Every real feature has a ball that reaches to its k-th nearest real neighbour. As in the authors' code a feature on
    a ball's rim is outside; one equal to its centre is inside, however many real images are equal.

    density: mean number of real balls around a generated feature, over k. At least 0; 1 is what real images score, and
        more comes of generated images that crowd where real ones are dense. Not moved by a single stray real image.
    coverage: share of real balls with a generated feature inside, in [0, 1]. Depends on the number of generated
        images: compare only equal numbers.

    Args:
        neighbourhood: k, at least 1; 5 in the paper. The real side has to have more features than that.
    """

    def __init__(self, neighbourhood: int = 5) -> None:
        if neighbourhood < 1:
            raise ValueError(f"neighbourhood={neighbourhood}: it has to be at least 1")
        self.neighbourhood = neighbourhood

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"density": "higher", "coverage": "higher"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        return super().lacks(generated, real) or too_few_for(self.neighbourhood, real=real)

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.features is not None
        assert real.features is not None
        radii = sample_radii(real, self.neighbourhood)
        density, coverage = density_and_coverage(generated.features, real.features, radii, self.neighbourhood)
        return {"density": density, "coverage": coverage}


def density_and_coverage(generated: Tensor, real: Tensor, radii: Tensor, k: int) -> tuple[float, float]:
    """Density and coverage, in one pass over the distances between the sides.

    Args:
        generated, real: float32 (N, D) and (M, D), on the CPU.
        radii: float64 (M,): distance of each real feature to its k-th nearest real neighbour.
    """
    reach = radii.square() * (1 - ROUNDING)
    inside = 0
    covered = torch.zeros(len(real), dtype=torch.bool)
    for _, columns, squares in distance_blocks(generated, real):
        within = (squares < reach[columns]) | (squares == 0)
        inside += int(within.sum())
        covered[columns] |= within.any(dim=0)
    return inside / (k * len(generated)), float(covered.double().mean())
