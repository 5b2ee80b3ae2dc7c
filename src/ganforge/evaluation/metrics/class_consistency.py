"""Whether conditional images are of the class that was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample


class ClassConsistency(Metric):
    """Share of generated images that a classifier of the real data's classes takes for the class asked for, in [0, 1].

    Needs an extractor whose classes are the data's. Read it beside the classifier's own accuracy on real images, which
    it cannot be expected to pass; images that please the classifier without looking real score too.
    """

    generated_needs = ("logits", "labels")
    real_needs = ()

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"class_consistency": "higher"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        if not real.classifies:
            return "the extractor's classes are not the data's"
        return super().lacks(generated, real)

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.logits is not None
        assert generated.labels is not None
        return {"class_consistency": class_consistency(generated.logits, generated.labels)}


def class_consistency(logits: Tensor, labels: Tensor) -> float:
    """Share of rows of logits (N, K) whose highest is at the label, int64 (N,)."""
    return float((logits.argmax(dim=1) == labels).double().mean())
