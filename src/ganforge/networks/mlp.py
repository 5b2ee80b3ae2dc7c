"""Perceptrons for vectors and small images (Goodfellow et al. 2014; with labels Mirza & Osindero 2014)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ganforge.networks.heads.head import MakeHead, plain
from ganforge.networks.heads.projection import Projection

LABEL_DIM = 32
NORMS: dict[str, type[nn.BatchNorm1d | nn.LayerNorm]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def sample_shape(image_size: int | None, channels: int) -> tuple[int, ...]:
    """The shape of one sample: (channels,) for vectors (`image_size` None), otherwise (channels, H, W).

    Raises:
        ValueError: `image_size` is below 1.
    """
    if image_size is None:
        return (channels,)
    if image_size < 1:
        raise ValueError(
            f"mlp does not support image_size={image_size}; supported: 1 and above, null for vectors"
        )
    return (channels, image_size, image_size)


class Generator(nn.Module):
    """`depth` hidden layers of `width` ReLUs; the label's embedding is concatenated to z.

    Images end in tanh; vectors (`image_size` None) in a linear layer, as their range is the data's own.

    Raises:
        ValueError: `image_size` is below 1.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int = 256,
        depth: int = 2,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.shape = sample_shape(image_size, channels)
        self.label_embedding = nn.Embedding(num_classes, LABEL_DIM) if num_classes else None
        features = latent_dim + (LABEL_DIM if num_classes else 0)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
            features = width
        layers += [nn.Linear(features, torch.Size(self.shape).numel()), nn.Unflatten(1, self.shape)]
        if image_size is not None:
            layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1], or vectors (B, C)."""
        if self.label_embedding is not None:
            z = torch.cat([z, self.label_embedding(labels)], dim=1)
        samples: Tensor = self.layers(z)
        return samples


class Discriminator(nn.Module):
    """`depth` hidden layers of `width` leaky ReLUs (0.2), then a head: by default linear, with classes a projection.

    Args:
        dropout: share of every layer's outputs that are left out in training.

    Raises:
        ValueError: `image_size` is below 1.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int = 256,
        depth: int = 2,
        norm: Literal["batch", "layer", "none"] = "none",
        dropout: float = 0.0,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        features = torch.Size(sample_shape(image_size, channels)).numel()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers.append(nn.Linear(features, width))
            if norm != "none":
                layers.append(NORMS[norm](width))
            active = nn.LeakyReLU(0.2, inplace=True)
            # As one layer, so that weights have the same names with and without.
            layers.append(nn.Sequential(active, nn.Dropout(dropout)) if dropout else active)
            features = width
        self.layers = nn.Sequential(*layers)
        self.head = (head or Projection)(features, num_classes, plain)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) or vectors (B, C) -> what the head sees, (B, width)."""
        features: Tensor = self.layers(images.flatten(1))
        return features

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W) or vectors (B, C), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
