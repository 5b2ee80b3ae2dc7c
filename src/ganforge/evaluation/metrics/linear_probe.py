"""What a discriminator has learnt of the classes: a linear classifier on its features.

Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional GANs", section 5 (arXiv 1511.06434).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from ganforge.evaluation.extractor import exact_float32
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.metrics.rows import enough, fixed_rows, images_of, readable
from ganforge.evaluation.sample import Model, Sample
from ganforge.images import to_float

TEST_SHARE = 0.2
PIXEL_SIDE = 8
INVERSE_PENALTY = 0.1  # scikit-learn's C
_SEED = 2026
_READ = 128  # images at a time

Features = Callable[[Tensor], Tensor]
"""uint8 (B, C, H, W) -> float32 (B, D) on the CPU."""


class LinearProbe(Metric):
    """`linear_probe`: accuracy of a linear classifier of real images by the discriminator's last features.

    Multinomial logistic regression on features standardised by the training rows; in [0, 1], higher is better.
    `linear_probe_pixels` is the same on the pixels, averaged to at most 8x8: the scale on which to read it. Tested on
    `real.held_out` where it has labels, otherwise on a fixed fifth of the real images, which the discriminator
    may have been trained on, if without their classes.

    A conditional discriminator gets label 0 with every image, so that its features tell of the image alone and
    cannot tell the label. The paper pools the features of all layers; these are the last layer's.

    Args:
        num_images: real images at most; in held-out ones, at most a fifth of it.

    Raises:
        ValueError: an argument out of range; fewer than 4 labelled images, or fewer than 2 classes among those to train
            on; features that are not finite.
    """

    generated_needs = ("model",)
    real_needs = ("images", "labels")
    fewest = 0  # of generated images it reads none

    def __init__(self, num_images: int = 5000) -> None:
        if num_images < 4:
            raise ValueError(f"linear_probe: num_images is {num_images}, but has to be at least 4")
        self.num_images = num_images

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"linear_probe": "higher", "linear_probe_pixels": "neither"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        if (reason := super().lacks(generated, real)) is not None:
            return reason
        assert real.labels is not None
        assert generated.model is not None
        if len(torch.unique(real.labels)) < 2:
            return "the real side has fewer than 2 classes"
        if real.num_images > 0 and _features_of(generated.model, images_of(real, torch.arange(1))) is None:
            return "the generated side's model has no discriminator"
        return None

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.model is not None
        model = generated.model
        return {
            "linear_probe": self._accuracy(real, lambda images: discriminator_features(model, images)),
            "linear_probe_pixels": real.once(
                ("linear_probe", self.num_images), lambda: self._accuracy(real, pooled_pixels)
            ),
        }

    def _accuracy(self, real: Sample, features: Features) -> float:
        rows = fixed_rows(enough("linear_probe", readable(real, labelled=True), 4), self.num_images)
        held_out, held_out_rows = real.held_out, torch.empty(0, dtype=torch.int64)
        if held_out is not None and held_out.images is not None and held_out.labels is not None:
            wanted = max(1, round(TEST_SHARE * self.num_images))
            held_out_rows = fixed_rows(readable(held_out, labelled=True), wanted)
        if held_out is not None and len(held_out_rows) > 0:
            return probe(*_read(real, rows, features), *_read(held_out, held_out_rows, features))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SEED))
        test = round(TEST_SHARE * len(rows))
        x, labels = _read(real, rows, features)
        return probe(x[order[test:]], labels[order[test:]], x[order[:test]], labels[order[:test]])


def _read(sample: Sample, rows: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    assert sample.labels is not None
    found = [features(images_of(sample, part)) for part in torch.split(rows, _READ)]
    return torch.cat(found), sample.labels[rows]


def probe(x: Tensor, labels: Tensor, test_x: Tensor, test_labels: Tensor) -> float:
    """Accuracy on the test rows of a linear classifier trained on the others.

    Minimises the sum of cross entropies + |W|² / (2 C) with C = 0.1: a mild penalty on standardised features, which
    makes the optimum unique where there are more features than rows.

    Args:
        x: float32 (N, D).
        labels: int64 (N,), of at least two classes.
        test_x: float32 (M, D).
        test_labels: int64 (M,).

    Raises:
        ValueError: labels of one class; features that are not finite.
    """
    if len(torch.unique(labels)) < 2:
        raise ValueError(f"linear_probe: the {len(labels)} images to train on are all of one class")
    if not (x.isfinite().all() and test_x.isfinite().all()):
        raise ValueError("linear_probe: the discriminator's features are not finite")
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    deviation[deviation <= 1e-6 * mean.abs()] = torch.inf  # what rounding leaves of a constant says nothing
    classifier = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    with warnings.catch_warnings():  # far beyond what accuracy can tell apart
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(((x - mean) / deviation).numpy(), labels.numpy())
    return float(classifier.score(((test_x - mean) / deviation).numpy(), test_labels.numpy()))


def discriminator_features(model: Model, images: Tensor) -> Tensor:
    """What the discriminator's last layer sees of uint8 (B, C, H, W) with label 0: float32 (B, D) on the CPU."""
    features = _features_of(model, images)
    if features is None:
        raise ValueError("linear_probe: the model has no discriminator")
    return features.float().flatten(1).cpu()


@torch.no_grad()
def _features_of(model: Model, images: Tensor) -> Tensor | None:
    labels = torch.zeros(len(images), dtype=torch.int64, device=model.device)
    with exact_float32(model.device):
        return model.discriminator_features(to_float(images).to(model.device), labels)


def pooled_pixels(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) -> averages of areas, at most 8x8: float32 (B, D)."""
    height, width = (min(PIXEL_SIDE, side) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(to_float(images), (height, width)).flatten(1)
