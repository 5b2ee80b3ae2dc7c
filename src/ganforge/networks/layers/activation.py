"""Activation and normalization of the ProGAN and StyleGAN family (Karras et al. 2018, arXiv:1710.10196)."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU (0.2), scaled to keep the size of normal features."""
    return F.leaky_relu(x, 0.2) * sqrt(2)


def normalize(x: Tensor) -> Tensor:
    """x (B, D, ...), the D numbers of each sample and place divided by the root of their mean square."""
    # Under autocast a root is float32, with which all that follows would be float32 again.
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8).to(x.dtype)
