"""How many of the data's classes the samples cover, and how evenly.

As VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and PacGAN (Lin et al. 2018, arXiv:1712.04086) count the modes of
stacked MNIST.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Sample


class Modes(Metric):
    """Each sample is of the class that the extractor finds most likely.

    modes: how many of the K classes have at least one sample, in [0, K].
    modes_kl: KL(q || p) = sum_k q_k log(q_k / p_k) in nats, q the shares of the classes among the samples and p those
        of the data; from 0. Of n samples with the very law of p it is about (K - 1) / (2 n): 0.019 for K = 1,000 and
        n = 26,000.

    Needs an extractor whose classes are the data's.

    Args:
        independent: how many equal parts, such as the digits of a number, a class is made of, each with nothing to do
            with the others; p is then the product of their shares, which takes far less data to know.

    Raises:
        ValueError: `independent` below 1.
    """

    generated_needs = ("logits",)
    real_needs = ("labels",)

    def __init__(self, independent: int = 1) -> None:
        if independent < 1:
            raise ValueError(f"independent={independent}: a class has at least 1 part")
        self.independent = independent

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"modes_kl": "lower", "modes": "higher"}

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        if not real.classifies:
            return "the extractor's classes are not the data's"
        return super().lacks(generated, real)

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.logits is not None
        assert real.labels is not None
        classes = generated.logits.shape[1]
        counts = generated.logits.argmax(dim=1).bincount(minlength=classes)
        shares = class_shares(real.labels, classes, self.independent)
        return {"modes_kl": kl_divergence(counts, shares), "modes": float((counts > 0).sum())}


def class_shares(labels: Tensor, classes: int, independent: int) -> Tensor:
    """Shares of the classes, float64 (K,), from int64 labels (N,).

    With independent parts a label is the number that they make, the first one counting most.

    Raises:
        ValueError: K is not the `independent`-th power of a whole number.
    """
    each = round(classes ** (1 / independent))
    if each**independent != classes:
        raise ValueError(f"independent={independent}: {classes} classes are not made of so many equal parts")
    shares = torch.ones(1, dtype=torch.float64)
    for place in range(independent - 1, -1, -1):
        counts = (labels // each**place % each).bincount(minlength=each).double()
        shares = torch.outer(shares, counts / counts.sum()).flatten()
    return shares


def kl_divergence(counts: Tensor, shares: Tensor) -> float:
    """KL(q || p) in nats, q the shares of int64 counts (K,), p float64 (K,); infinite where p lacks a class of q's."""
    q = counts.double() / counts.sum()
    return float((torch.special.xlogy(q, q) - torch.special.xlogy(q, shares)).sum())
