"""The nonsaturating loss with labels not quite certain (Salimans et al. 2016, arXiv:1606.03498, section 3.4)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from ganforge.losses.loss import Loss


class LabelSmoothing(Loss):
    """With r the real and f the fake logits, t = 1 - s the label of real images, q the share of labels swapped:

        L_D = (1 - q)·E[H(t, r) + H(0, f)] + q·E[H(0, r) + H(t, f)],  H(t, x) = t·softplus(-x) + (1 - t)·softplus(x)
        L_G = E[softplus(-f)]

    Labels are not swapped by lot: this is the mean over all lots, with the same gradient on average.

    Args:
        smoothing: s in [0, 1); one-sided, as the paper advises.
        flip: q in [0, 0.5).

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(self, smoothing: float = 0.1, flip: float = 0.0) -> None:
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing={smoothing} must be at least 0 and below 1")
        if not 0 <= flip < 0.5:
            raise ValueError(f"flip={flip}: the share of labels swapped must be at least 0 and below 0.5")
        self.smoothing = smoothing
        self.flip = flip

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        certain = 1 - self.smoothing
        real, fake = (1 - self.flip) * certain, self.flip * certain
        return _cross_entropy(real, real_logits) + _cross_entropy(fake, fake_logits)

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return softplus(-fake_logits).mean()


def _cross_entropy(label: float, logits: Tensor) -> Tensor:
    """Of labels in [0, 1]: it is linear in them."""
    return (label * softplus(-logits) + (1 - label) * softplus(logits)).mean()
