"""Classification accuracy score: Ravuri and Vinyals 2019, "Classification Accuracy Score ..." (arXiv 1905.10887)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ganforge.evaluation.classifier import (
    SmallClassifier,
    accuracy,
    build_classifier,
    train_classifier,
)
from ganforge.evaluation.extractor import exact_float32
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.metrics.rows import enough, fixed_rows, images_of, readable
from ganforge.evaluation.sample import Sample
from ganforge.images import to_uint8

LARGEST_SIDE = 32
TEST_SHARE = 0.1
_SEED = 2026
_READ = 256  # images at a time


class ClassificationAccuracy(Metric):
    """Whether generated images serve to learn the classes, and whether real ones explain the generated.

    cas: accuracy on real images of a classifier trained on generated images with the labels they were asked for.
    cas_real: the same of a classifier trained on real images: the scale on which to read cas, and about the most that
    it can be.
    cas_reverse: accuracy of that classifier on the generated images: whether they show the class asked for. A
    generator that gives one good image of each class has 1 here and little in cas.

    All in [0, 1]. The test images are `real.held_out` where it has labels, and otherwise a tenth of the real images,
    which that classifier does not see but a generator may have been trained on. The paper trains a ResNet-50 on
    ImageNet; this is a small convolutional network on images of at most 32x32 pixels, so figures compare with one
    another and not with papers. It runs on the model's device, otherwise on the CPU.

    Args:
        steps: optimizer steps of 128 images for each of the two classifiers.
        num_images: images of each side, to train on and to test on, at most.

    Raises:
        ValueError: an argument out of range; fewer than 4 labelled images of a side that can be read.
    """

    generated_needs = ("images", "labels")
    real_needs = ("images", "labels")
    fewest = 4

    def __init__(self, steps: int = 600, num_images: int = 10_000) -> None:
        if steps < 1:
            raise ValueError(f"cas: steps is {steps}, but has to be at least 1")
        if num_images < self.fewest:
            raise ValueError(f"cas: num_images is {num_images}, but has to be at least {self.fewest}")
        self.steps = steps
        self.num_images = num_images

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"cas": "higher", "cas_real": "neither", "cas_reverse": "higher"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        if (reason := super().lacks(generated, real)) is not None:
            return reason
        assert real.labels is not None
        return "the real side has fewer than 2 classes" if len(torch.unique(real.labels)) < 2 else None

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        device = torch.device("cpu") if generated.model is None else generated.model.device
        num_classes = _num_classes(generated, real)
        seeded = [device] if device.type == "cuda" else []
        # A trainer's evaluation may be inside inference mode, where nothing can learn.
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            exact_float32(device),
            torch.random.fork_rng(devices=seeded),
        ):
            theirs = real.once(
                ("cas", self.steps, self.num_images, num_classes, str(device)),
                lambda: self._real_side(real, num_classes, device),
            )
            ours = labelled_images(generated, theirs.classifier, self.num_images)
            classifier = self._trained(ours, like=theirs.classifier, device=device)
            return {
                "cas": _accuracy(classifier, theirs.test, device),
                "cas_real": theirs.accuracy,
                "cas_reverse": _accuracy(theirs.classifier, ours, device),
            }

    def _real_side(self, real: Sample, num_classes: int, device: torch.device) -> _RealSide:
        channels, height, width = images_of(real, torch.arange(1)).shape[1:]
        side = min(LARGEST_SIDE, max(height, width, 4))
        like = build_classifier(side, channels, num_classes, seed=_SEED)
        training = labelled_images(real, like, self.num_images)
        held_out = real.held_out
        if held_out is not None and held_out.images is not None and held_out.labels is not None:
            test = labelled_images(held_out, like, self.num_images, fewest=1)
        else:
            training, test = split(training, TEST_SHARE)
        classifier = self._trained(training, like=like, device=device)
        return _RealSide(classifier, test, _accuracy(classifier, test, device))

    def _trained(
        self, training: LabelledImages, like: SmallClassifier, device: torch.device
    ) -> SmallClassifier:
        """A fresh classifier of `like`'s shape, trained."""
        classifier = build_classifier(like.image_size, like.channels, like.classify.out_features, seed=_SEED)
        rows = torch.arange(len(training.labels))
        train_classifier(classifier, rows, training.fetch, steps=self.steps, device=device, seed=_SEED)
        return classifier


class LabelledImages(NamedTuple):
    """Images uint8 (N, C, S, S) at a classifier's size, and their labels int64 (N,), on the CPU."""

    images: Tensor
    labels: Tensor

    def fetch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[rows], self.labels[rows]


class _RealSide(NamedTuple):
    classifier: SmallClassifier
    test: LabelledImages
    accuracy: float


def labelled_images(
    sample: Sample, classifier: SmallClassifier, num_images: int, fewest: int = ClassificationAccuracy.fewest
) -> LabelledImages:
    """A fixed random subset of the sample's labelled images, read once and brought to the classifier's size.

    Raises:
        ValueError: fewer than `fewest` of them.
    """
    assert sample.labels is not None
    rows = fixed_rows(enough("cas", readable(sample, labelled=True), fewest), num_images)
    images = [to_uint8(classifier.fit(images_of(sample, part))) for part in torch.split(rows, _READ)]
    return LabelledImages(torch.cat(images), sample.labels[rows])


def split(whole: LabelledImages, test_share: float) -> tuple[LabelledImages, LabelledImages]:
    """A fixed random split into images to train on and, at least one, to test on."""
    order = torch.randperm(len(whole.labels), generator=torch.Generator().manual_seed(_SEED))
    test = max(1, round(test_share * len(order)))
    return LabelledImages(*whole.fetch(order[test:])), LabelledImages(*whole.fetch(order[:test]))


def _accuracy(classifier: SmallClassifier, test: LabelledImages, device: torch.device) -> float:
    return accuracy(classifier, torch.arange(len(test.labels)), test.fetch, device)


def _num_classes(*samples: Sample) -> int:
    """Enough for every label of the samples, the held-out ones included."""
    largest = 0
    for sample in samples:
        for side in (sample, sample.held_out):
            if side is not None and side.labels is not None:
                largest = max(largest, int(side.labels.max()))
    return largest + 1
