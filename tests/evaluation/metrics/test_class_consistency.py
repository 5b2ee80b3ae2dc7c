"""The share of images of the class asked for."""

from __future__ import annotations

import torch

from ganforge.evaluation.metrics.class_consistency import ClassConsistency
from ganforge.evaluation.sample import Sample

REAL = Sample(count=9, classifies=True)


def test_share_of_images_of_the_class_asked_for() -> None:
    labels = torch.tensor([0, 1, 2, 2, 1])
    logits = torch.eye(3)[torch.tensor([0, 1, 2, 0, 0])]
    generated = Sample(count=5, logits=logits, labels=labels)
    assert ClassConsistency()(generated, REAL) == {"class_consistency": 0.6}


def test_needs_a_classifier_of_the_datas_classes() -> None:
    logits, labels = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)
    generated = Sample(count=5, logits=logits, labels=labels)
    assert ClassConsistency().lacks(generated, REAL) is None
    assert (
        ClassConsistency().lacks(generated, Sample(count=9)) == "the extractor's classes are not the data's"
    )
    assert (
        ClassConsistency().lacks(Sample(count=5, logits=logits), REAL) == "the generated side has no labels"
    )
