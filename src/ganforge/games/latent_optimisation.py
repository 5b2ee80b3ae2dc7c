"""LOGAN (Wu et al. 2019, arXiv:1912.00953): latents take a step up the discriminator's slope before they are used."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ganforge.draws import Draws


def latent_step(slope: Tensor, alpha: float, beta: float | None) -> Tensor:
    """Δz of slopes g = ∂f/∂z (B, L): α·g, or with β the natural gradient's α·g / (β + ‖g‖²); of g's shape.

    The latter is α·(g gᵀ + β·1)⁻¹ g, with the Fisher matrix of one sample, damped (equations 12 and 13).
    """
    if beta is None:
        return alpha * slope
    return alpha * slope / (beta + slope.square().sum(dim=1, keepdim=True))


class LatentOptimisation:
    """z' = z + clip(Δz), with Δz of the slope of f(z) = D(G(z)), and the penalty w · E‖clip(Δz)‖² for both players.

    Gradients of both players' terms go through Δz as well. Latents are normal, so it is the change that is clipped; the
    paper's are uniform in [-1, 1], and its z' is clipped to there. Which of a latent's numbers take part is drawn anew
    each time; the others count as constants. Samples are made without a step.

    Args:
        alpha: α, above 0.
        beta: β, above 0, of the natural gradient; None for the plain one.
        weight: w, at least 0.
        share: probability of a number's taking part, in (0, 1].
        clip: bound of the change of each number, above 0.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(
        self,
        alpha: float = 0.9,
        beta: float | None = 5.0,
        weight: float = 300.0,
        share: float = 0.5,
        clip: float = 1.0,
    ) -> None:
        for name, value in (("alpha", alpha), ("beta", beta), ("clip", clip)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} of a latent's step must be above 0 and finite")
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight={weight} of a latent's step must be at least 0 and finite")
        if not 0 < share <= 1:
            raise ValueError(
                f"share={share} of a latent's numbers that take a step must be above 0 and at most 1"
            )
        self.alpha, self.beta, self.weight, self.share, self.clip = alpha, beta, weight, share, clip

    def __call__(self, z: Tensor, score: Callable[[Tensor], Tensor], draws: Draws) -> tuple[Tensor, Tensor]:
        """z' (B, L), differentiable in what `score` is made of, and the penalty, a scalar.

        Args:
            z: float32 (B, L).
            score: latents to logits, of which the sum is taken; differentiable twice.
        """
        with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
            start = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(score(start).sum(), start, create_graph=True)
            slope = torch.where(draws.uniform(*z.shape, device=z.device) < self.share, slope, 0.0)
            step = latent_step(slope, self.alpha, self.beta).clamp(-self.clip, self.clip)
            return z + step, self.weight * step.square().sum(dim=1).mean()


@contextlib.contextmanager
def held(network: nn.Module) -> Iterator[None]:
    """Graphs that are made in here leave the network's parameters out."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
