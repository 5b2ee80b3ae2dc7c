"""What generators of styles share (Karras et al. 2019 to 2021): z becomes w, and w, or several, an image."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ganforge.networks.layers.activation import activate, normalize
from ganforge.networks.layers.equalized import EqualizedEmbedding, EqualizedLinear


class Mapping(nn.Module):
    """(z, label) -> w: fully connected layers with a hundredth of the learning rate."""

    def __init__(self, latent_dim: int, num_classes: int, w_dim: int, depth: int) -> None:
        super().__init__()
        self.embedding = EqualizedEmbedding(num_classes, w_dim) if num_classes else None
        features = latent_dim + (w_dim if num_classes else 0)
        widths = [features, *[w_dim] * depth]
        self.layers = nn.ModuleList(EqualizedLinear(i, o, learning_rate=0.01) for i, o in pairwise(widths))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z (B, latent_dim), labels int64 (B,) -> w (B, w_dim)."""
        w = normalize(z)
        if self.embedding is not None:
            w = torch.cat([w, normalize(self.embedding(labels))], dim=1)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class StyleGenerator(nn.Module):
    """Mapping, then synthesis.

    Images have no tanh: they are bounded by [-1, 1] in evaluation mode alone.

    Args:
        latent_dim: length of z.
        mapping: (z, labels) -> w.
        synthesis: w (B, w_dim), or (B, num_styles, w_dim) with a style for each layer -> images.
        mixing: in training mode, the share of images whose layers, from a random one on, take the style of another,
            random z (style mixing, arXiv:1812.04948, section 3.1).
    """

    def __init__(
        self, latent_dim: int, mapping: Mapping, synthesis: nn.Module, num_styles: int, mixing: float
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mixing = mixing
        self.mapping = mapping
        self.synthesis = synthesis
        self.num_styles = num_styles

    def forward(
        self, z: Tensor, labels: Tensor, truncation: float = 1.0, mean: Tensor | None = None
    ) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W).

        Args:
            truncation: ψ; the style is mean + ψ (w - mean), the image of less variety (arXiv:1812.04948, appendix B).
            mean: (B, w_dim), what `mean_style` gives where it is known already.
        """
        w: Tensor = self.mapping(z, labels)
        if truncation != 1:
            w = (self.mean_style(labels) if mean is None else mean).lerp(w, truncation)
        if self.training and self.mixing > 0:
            w = self._mixed(w, torch.randn_like(z), labels)
        images: Tensor = self.synthesis(w)
        return images if self.training else images.clamp(-1, 1)

    @torch.no_grad()
    def mean_style(self, labels: Tensor, samples: int = 4096) -> Tensor:
        """For each label its styles' mean, (B, w_dim), over z of a seed of its own: a function of the weights alone."""
        z = torch.randn(samples, self.latent_dim, generator=torch.Generator().manual_seed(0)).to(
            labels.device
        )
        kinds, kind = torch.unique(
            labels if self.mapping.embedding is not None else torch.zeros_like(labels), return_inverse=True
        )
        means = [self.mapping(z, label.expand(samples)).mean(dim=0) for label in kinds]
        return torch.stack(means)[kind]

    def _mixed(self, w: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        """w (B, w_dim) -> styles (B, num_styles, w_dim) that change to those of z at a random layer."""
        layers, device = self.num_styles, w.device
        cut = torch.randint(1, layers, (len(w), 1), device=device)
        cut = torch.where(torch.rand(len(w), 1, device=device) < self.mixing, cut, layers)
        kept = torch.arange(layers, device=device) < cut
        other: Tensor = self.mapping(z, labels)
        return torch.where(kept[:, :, None], w[:, None], other[:, None])
