"""Path length regularisation (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN",
arXiv:1912.04958).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.moving_average import MovingAverage
from ganforge.penalties.penalty import GeneratorPenalty, Scene
from ganforge.schedules import Value


def path_lengths(images: Tensor, points: Tensor, draws: Draws) -> Tensor:
    """‖Jᵀ y‖ of each sample, (B,), differentiable: J = ∂images/∂points and y ~ N(0, I) / √(H·W).

    Args:
        images: (B, C, H, W), or vectors (B, D), made of the points.
        points: (B, L), or (B, n, L) for n copies of a point, whose squares are averaged.
    """
    y = draws.normal(*images.shape, device=images.device) / math.sqrt(math.prod(images.shape[2:]))
    (gradient,) = torch.autograd.grad((images * y).sum(), points, create_graph=True)
    copies = math.prod(points.shape[1:-1])
    lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1) / math.sqrt(copies)
    return lengths


class PathLength(GeneratorPenalty):
    """λ · E[(‖J_wᵀ y‖ - a)²], a the moving average of the lengths (equation 4); steps in w change images evenly.

    For fresh w where the generator has `mapping(z, labels) -> w` and `synthesis(w) -> images`, for fresh z elsewhere.
    Where the synthesis takes a style for each of its `num_styles` layers, w is each layer's copy, and squares are
    averaged over layers. With y divided by r, the height of images, and 2 log₂ r - 2 layers, λ = 2 is then the paper's
    ln 2 / (r² (ln r - ln 2)) (appendix B).

    Args:
        weight: λ.
        decay: of the moving average.
        every: see `Penalty`.
    """

    def __init__(self, weight: Value = 2.0, decay: float = 0.99, every: int = 4) -> None:
        super().__init__(weight, every)
        self.average = MovingAverage(decay)

    def forward(self, scene: Scene, draws: Draws) -> Tensor:
        points = draws.normal(*scene.z.shape, device=scene.z.device)
        generator: Any = scene.generator
        if hasattr(generator, "mapping") and hasattr(generator, "synthesis"):
            points = generator.mapping(points, scene.labels)
            copies = getattr(generator.synthesis, "num_styles", None)
            if points.ndim == 2 and copies is not None:
                points = points[:, None].expand(-1, copies, -1)
            images: Tensor = generator.synthesis(points)
        else:
            images = scene.generate(points.requires_grad_())
        lengths = path_lengths(images, points, draws)
        term = (lengths - self.average.value).square().mean() * self.average.known
        self.average.add(lengths)
        return self.weight * term

    def advance(self) -> None:
        self.average.advance()
