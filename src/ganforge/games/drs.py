"""Discriminator rejection sampling (Azadi et al. 2019, arXiv:1810.06758)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.games.sampling import Sampler, proportional_labels
from ganforge.games.sampling_method import Judged, SamplingMethod

log = logging.getLogger("ganforge")

MOST_TRIES = 1000
_EPSILON = 1e-6


class DRS(SamplingMethod):
    """Takes a sample x with probability sigmoid(F(x)), equation 8 of the paper, where d = log p_data / p_generator:

        F(x) = d(x) - d_M - log(1 - exp(d(x) - d_M - 10^-6)) - γ

    and d_M is the largest d. With γ = 0 this is exp(d - d_M), and what is taken has the data's law; a larger γ < 0
    takes more, and more evenly.

    Here d_M, and γ as a percentile, come from samples made beforehand, and stay: the paper raises d_M where a larger d
    turns up, and takes γ from each batch. So whether a sample is taken depends on itself alone, not on what came before
    it; what exceeds d_M is treated as d_M.

    Args:
        burn_in: samples made beforehand, at least 2.
        gamma: γ; None for the percentile.
        gamma_percentile: of F without γ, in [0, 100]: so many percent of the samples are taken with a probability below
            1/2. Of no use where gamma is given.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(
        self, burn_in: int = 10_000, gamma: float | None = None, gamma_percentile: float = 80.0
    ) -> None:
        if burn_in < 2:
            raise ValueError(f"burn_in={burn_in} must be at least 2")
        if not 0 <= gamma_percentile <= 100:
            raise ValueError(f"gamma_percentile={gamma_percentile} must be from 0 to 100")
        self.burn_in, self.gamma, self.gamma_percentile = burn_in, gamma, gamma_percentile

    @torch.no_grad()
    def __call__(self, judged: Judged, class_counts: Sequence[int], batch_size: int) -> Sampler:
        labels = proportional_labels(class_counts, self.burn_in).to(judged.device)
        parts = enumerate(torch.split(labels, batch_size))
        logits = torch.cat([_judged(judged, Draws(0, f"drs/{k}"), part)[1] for k, part in parts])
        if not logits.isfinite().all():
            raise ValueError("the discriminator's logits are not finite: nothing can be rejected by them")
        largest = float(logits.max())
        gamma = self.gamma
        if gamma is None:
            gamma = float(excess(logits, largest).quantile(self.gamma_percentile / 100))
        rate = float(acceptance(logits, largest, gamma).mean())
        log.info(
            "rejection sampling: largest logit %.3g, gamma %.3g, takes %.1f%%", largest, gamma, 100 * rate
        )

        def sample(draws: Draws, labels: Tensor) -> Tensor:
            return self._sample(judged, draws, labels, largest, gamma)

        return sample

    def _sample(self, judged: Judged, draws: Draws, labels: Tensor, largest: float, gamma: float) -> Tensor:
        """One sample for each label: candidates for those that lack one, a batch at a time."""
        lacking = torch.arange(len(labels), device=labels.device)
        taken: Tensor | None = None
        for _ in range(MOST_TRIES):
            # A full batch each time: several candidates for each label once few are lacking.
            owners = lacking.repeat(-(-len(labels) // len(lacking)))[: len(labels)]
            samples, logits = _judged(judged, draws, labels[owners])
            chances = acceptance(logits, largest, gamma)
            accepted = draws.uniform(len(owners), device=labels.device) < chances
            taken = torch.empty_like(samples) if taken is None else taken
            rows = accepted.nonzero().flatten().flip(0)  # the first one taken is written last
            for row, owner in zip(rows.tolist(), owners[rows].tolist(), strict=True):
                taken[owner] = samples[row]
            lacking = lacking[~torch.isin(lacking, owners[rows])]
            if not len(lacking):
                return taken
        raise ValueError(
            f"of {MOST_TRIES * len(labels)} samples too few were taken (gamma={gamma:.3g}): a smaller sampling.gamma, "
            "or a smaller sampling.gamma_percentile with gamma=null, takes more"
        )


def _judged(judged: Judged, draws: Draws, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Fresh samples of these labels, and their logits."""
    z = draws.normal(len(labels), judged.latent_dim, device=labels.device)
    samples = judged.images(z, labels)
    return samples, judged.logits(z, samples, labels)


def excess(logits: Tensor, largest: float) -> Tensor:
    """F without γ, float64 (B,): the logit of exp(d - d_M), at d = d_M some 14."""
    below = (logits.double() - largest).clamp(max=0)
    return below - torch.log(-torch.expm1(below - _EPSILON))


def acceptance(logits: Tensor, largest: float, gamma: float) -> Tensor:
    """The probability with which each sample is taken, float32 (B,)."""
    return torch.sigmoid(excess(logits, largest) - gamma).float()
