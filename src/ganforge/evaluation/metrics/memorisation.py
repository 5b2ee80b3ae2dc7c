"""Whether generated images are copies of training images: nearest neighbours in the features.

Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models" (arXiv 2004.05675); Alaa et al.
2022, "How Faithful is your Synthetic Data?" (arXiv 2102.08921).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ganforge.evaluation.metrics.distances import nearest, nearest_few, sample_radii
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.metrics.rows import images_of
from ganforge.evaluation.sample import Sample

NEIGHBOURS = 5


class Memorisation(Metric):
    """`memorisation` and `authenticity`, from the distances to the nearest training image; real images are those.

    memorisation: P(d < d') + P(d = d') / 2 for the distance d of a random generated and d' of a random held-out image
    (`real.held_out`) to its nearest training image. 0.5 for a generator that gives the data's distribution; towards 1
    it copies. Below 0.5 its images are farther from the training images than new ones are: it underfits, or collapsed,
    and the figure says nothing of copying. Meehan et al. report the Mann-Whitney U behind it as a z-score, in cells;
    this is U itself, over all images, as a share of all pairs. Without held-out images the training images stand for
    them, each with its distance to the nearest other one.

    authenticity: share of generated images whose nearest training image is farther from them than from its own
    nearest other training image, in [0, 1]; higher is better. 0 for copies, but 1 for images far from all data. New
    images of the data have the share of points that are not each other's nearest neighbours: 0.38 in the plane, 0.9
    for 10,000 normal points in 512 dimensions. So read it beside `authenticity_real`, that of the held-out images,
    which is left out without them.

    Real features that are a subset of the training images can only show copies of that subset.

    Raises:
        ValueError: fewer than 2 real features, or features of other widths.
    """

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"memorisation": "lower", "authenticity": "higher", "authenticity_real": "neither"}

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.features is not None
        assert real.features is not None
        if len(real.features) < 2:
            raise ValueError(f"memorisation needs at least 2 real features, not {len(real.features)}")
        training = real.features
        radii = sample_radii(real, 1)
        distances, neighbours = nearest(generated.features, training)
        figures = {"authenticity": share_of_authentic(distances, neighbours, radii)}
        held_out = None if real.held_out is None else real.held_out.features
        if held_out is None or len(held_out) == 0:
            return figures | {"memorisation": share_of_smaller(distances, radii)}
        unseen = held_out
        expected, beside = real.once("memorisation", lambda: nearest(unseen, training))
        return figures | {
            "memorisation": share_of_smaller(distances, expected),
            "authenticity_real": share_of_authentic(expected, beside, radii),
        }


def share_of_authentic(distances: Tensor, neighbours: Tensor, radii: Tensor) -> float:
    """Share of images farther from their nearest training image than that one from its own nearest neighbour.

    Args:
        distances: (N,), to the nearest training image.
        neighbours: int64 (N,), that training image's row.
        radii: (M,), of each training image to the nearest other.
    """
    return float((distances > radii[neighbours]).double().mean())


def share_of_smaller(one: Tensor, other: Tensor) -> float:
    """P(a < b) + P(a = b) / 2 for random elements a of `one` and b of `other`, (N,) and (M,): Mann-Whitney's U / NM."""
    values, ordered = one.numpy(), np.sort(other.numpy())
    larger = len(ordered) - np.searchsorted(ordered, values, side="right")
    not_smaller = len(ordered) - np.searchsorted(ordered, values, side="left")
    return float((larger + not_smaller).mean() / (2 * len(ordered)))


def nearest_training_images(
    generated: Sample, real: Sample, count: int, neighbours: int = NEIGHBOURS
) -> Tensor:
    """For a picture: generated images beside the training images nearest to them, the closest pairs first.

    Args:
        generated: with features and images.
        real: the training images, with features and images; of those only such as can be read are searched.
        count: how many generated images, lowered to as many as there are.
        neighbours: how many training images beside each, nearest first.

    Returns:
        uint8 (count * (1 + neighbours), C, H, W): rows for `ganforge.images.grid` with 1 + neighbours columns.

    Raises:
        ValueError: count or neighbours below 1; fewer training images than neighbours; nothing to show; images of two
            shapes.
    """
    if count < 1 or neighbours < 1:
        raise ValueError(
            f"a picture of nearest images takes at least 1 of each, not {count} and {neighbours}"
        )
    assert generated.features is not None
    assert real.features is not None
    shown, searched = generated.features[: generated.num_images], real.features[: real.num_images]
    if len(shown) == 0 or len(searched) < neighbours:
        raise ValueError(
            f"a picture of {neighbours} nearest images takes a generated image and {neighbours} training images "
            f"that can be read, not {len(shown)} and {len(searched)}"
        )
    distances, found = nearest_few(shown, searched, neighbours)
    closest = distances[:, 0].argsort(stable=True)[:count]
    pictures = images_of(generated, closest)
    training = images_of(real, found[closest].flatten())
    if pictures.shape[1:] != training.shape[1:]:
        raise ValueError(
            f"a picture of nearest images takes images of one shape, not {tuple(pictures.shape[1:])} beside "
            f"{tuple(training.shape[1:])}"
        )
    rows = [pictures[:, None], training.reshape(len(closest), neighbours, *training.shape[1:])]
    return torch.cat(rows, dim=1).flatten(0, 1)
