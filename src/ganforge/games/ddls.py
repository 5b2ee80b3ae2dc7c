"""Discriminator driven latent sampling (Che et al. 2020, arXiv:2003.06060): Langevin dynamics of z."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.games.sampling import Sampler
from ganforge.games.sampling_method import Judged, SamplingMethod


class DDLS(SamplingMethod):
    """Samples G(z) of the latents' energy model, sections 2 and 3 of the paper: p(z) ∝ exp(-E(z)), where

        E(z) = -log p0(z) - d(G(z)) = |z|² / 2 - d(G(z)) + const,
        z <- z - ε/2 · ∇E(z) + s·√ε · n,  n standard normal,

    from a standard normal z. With d = log p_data / p_generator, G(z) then has the data's law. No step is refused: of a
    normal law of variance v it gives, with s = 1, the variance v / (1 - ε / (4v)).

    Numbers of z that d does not slope with stay as they were drawn: those that choose one of several, such as InfoGAN's
    categories and MAD-GAN's generator. G(z) then has the data's law given the choice.

    Args:
        steps: how many; from 0, which leaves z as it was.
        step_size: ε, above 0.
        noise: s, from 0; 1 is Langevin dynamics.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(self, steps: int = 100, step_size: float = 0.01, noise: float = 1.0) -> None:
        if steps < 0:
            raise ValueError(f"steps={steps} must be at least 0")
        if not 0 < step_size < math.inf:
            raise ValueError(f"step_size={step_size} must be above 0 and finite")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise={noise} must be at least 0 and finite")
        self.steps, self.step_size, self.noise = steps, step_size, noise

    def __call__(self, judged: Judged, class_counts: Sequence[int], batch_size: int) -> Sampler:
        def sample(draws: Draws, labels: Tensor) -> Tensor:
            return judged.images(self.latents(judged, draws, labels), labels)

        return sample

    def latents(self, judged: Judged, draws: Draws, labels: Tensor) -> Tensor:
        """z float32 (B, latent_dim) after all steps, for int64 labels (B,).

        Raises:
            ValueError: z ran away to infinity.
        """
        shape = len(labels), judged.latent_dim
        z = draws.normal(*shape, device=labels.device)
        moves: Tensor | None = None
        for _ in range(self.steps):
            noise = draws.normal(*shape, device=labels.device)
            slope = self._slope(judged, z, labels)
            moves = (slope != 0).any(dim=0) if moves is None else moves
            step = self.step_size / 2 * (slope - z) + self.noise * math.sqrt(self.step_size) * noise
            z = torch.where(moves, z + step, z)
        if not z.isfinite().all():
            raise ValueError(f"z became infinite with step_size={self.step_size}: a smaller one is needed")
        return z

    @staticmethod
    def _slope(judged: Judged, z: Tensor, labels: Tensor) -> Tensor:
        """∇d(G(z)), each row's own."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            logits = judged.logits(z, judged.images(z, labels), labels)
            (slope,) = torch.autograd.grad(logits.sum(), z)
        return slope
