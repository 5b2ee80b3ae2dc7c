"""The gradient of each sample's logit by that sample, of which gradient penalties are made."""

from __future__ import annotations

import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.penalties.penalty import Critic


def input_gradient(critic: Critic, images: Tensor) -> Tensor:
    """∇ₓ critic(x), itself differentiable by the critic's parameters.

    Runs outside autocast, in the images' own dtype: squares of gradients leave half precision's range.

    Args:
        critic: images to logits (B,); no sample's logit depends on other samples (no batch norm).
        images: (B, C, H, W) or (B, D); taken out of whatever graph they are in.

    Returns:
        (B, C·H·W) or (B, D), of the images' dtype.
    """
    with torch.autocast(images.device.type, enabled=False):
        points = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return gradient.flatten(start_dim=1)


def interpolates(real: Tensor, fake: Tensor, draws: Draws) -> Tensor:
    """ε·real + (1 - ε)·fake with one ε ~ U[0, 1) a sample, of their shape."""
    assert real.shape == fake.shape, (real.shape, fake.shape)
    epsilon = draws.uniform(len(real), *[1] * (real.ndim - 1), device=real.device)
    return fake + epsilon * (real - fake)


def distance_of_norm_from_one(critic: Critic, images: Tensor) -> Tensor:
    """E[(‖∇ₓ critic(x)‖₂ - 1)²], scalar.

    The norm's derivative at a gradient of 0 is taken as 0 (`vector_norm`), where sqrt of a sum gives NaN.
    """
    norms: Tensor = torch.linalg.vector_norm(input_gradient(critic, images), dim=1)
    return (norms - 1).square().mean()
