"""DCGAN (Radford, Metz & Chintala 2015, arXiv:1511.06434) for pictures of any power of two from 8 to 256."""

import functools
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.conditioning.concatenation import Concatenation
from ganforge.networks.conditioning.conditioning import MakeConditioning
from ganforge.networks.heads.head import MakeHead, plain
from ganforge.networks.heads.projection import Projection
from ganforge.networks.image_size import supported_image_size
from ganforge.networks.layers.batch_norm import NormName, norm2d

IMAGE_SIZES = (8, 16, 32, 64, 128, 256)


def level_widths(image_size: int | None, width: int) -> list[int]:
    """Channels of each level from the image end down to 4x4: `width`, doubled from level to level.

    >>> level_widths(64, 128)
    [128, 256, 512, 1024]
    """
    size = supported_image_size(image_size, IMAGE_SIZES, network="dcgan")
    return [width << level for level in range(size.bit_length() - 3)]


def init_normal(module: nn.Module) -> None:
    """The paper's N(0, 0.02) weights; gains of batch norm N(1, 0.02), as in its published code."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.normal_(layer.weight, 1.0, 0.02)


def init_he(module: nn.Module) -> None:
    """He et al. 2015 for leaky ReLU (0.2): keeps the size of features that nothing normalizes."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=0.2)


class UpBlock(nn.Module):
    """Norm, ReLU, and a transposed convolution to twice the size."""

    def __init__(self, norm: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.norm = norm
        self.conv = nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=False)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """features (B, before, H, W) -> (B, after, 2H, 2W); `condition` is what the norm takes."""
        h: Tensor = self.conv(F.relu(self.norm(features, condition), inplace=True))
        return h


class Generator(nn.Module):
    """z -> projection to 4x4 -> stride-2 transposed convolutions, batch norm and ReLU between them -> tanh.

    `width` is the number of channels before the last convolution, doubled per level towards 4x4: with 128 and
    64x64 images the paper's 1024, 512, 256, 128. Labels by default by concatenation.

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int = 64,
        conditioning: MakeConditioning | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.conditioning = (conditioning or Concatenation)(latent_dim, num_classes)
        widths = level_widths(image_size, width)[::-1]
        self.bottom_shape = (widths[0], 4, 4)
        # On a 1x1 input a linear layer is the 4x4 transposed convolution of other codes, and faster.
        self.linear = nn.Linear(self.conditioning.features, widths[0] * 4 * 4, bias=False)
        self.blocks = nn.ModuleList(
            UpBlock(self.conditioning.norm(before), before, after)
            for before, after in pairwise([*widths, channels])
        )
        init_normal(self)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float (B, latent_dim), labels int64 (B,) -> images (B, C, H, W) in [-1, 1]."""
        code, condition = self.conditioning(z, labels)
        h = self.linear(code).unflatten(1, self.bottom_shape)
        for block in self.blocks:
            h = block(h, condition)
        return torch.tanh(h)


class Discriminator(nn.Module):
    """Stride-2 4x4 convolutions with leaky ReLU (0.2) down to 4x4, then a head on the flattened features.

    `width` is the number of channels after the first convolution, doubled per level. 8x8 images go down
    to 2x2: a single convolution is too weak to teach the generator (Frechet distance of 8x8 digits in
    pixel space after 1,500 rounds of 64 images: 3.1 with one, 0.46 with two). `norm` follows every
    convolution but the first: `batch` as in the paper; `layer` (over C, H, W, with a gain and a bias per
    channel) where each logit must depend on its own image alone; or `none`. The head is by default a linear
    layer, with classes a projection.

    Args:
        dropout: share of every layer's outputs that are left out in training (Salimans et al. 2016,
            arXiv:1606.03498, whose discriminators have it).

    Raises:
        ValueError: `image_size` is None or unsupported.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        num_classes: int = 0,
        width: int = 64,
        norm: NormName = "batch",
        dropout: float = 0.0,
        head: MakeHead | None = None,
    ) -> None:
        super().__init__()
        widths = level_widths(image_size, width)
        pixels = 4 * 4
        if len(widths) == 1:
            widths, pixels = [width, 2 * width], 2 * 2
        has_bias = norm == "none"  # as the authors' code; without norm nothing else would shift the features
        layers: list[nn.Module] = []
        for level, wide in enumerate(widths):
            layers.append(nn.Conv2d(channels, wide, kernel_size=4, stride=2, padding=1, bias=has_bias))
            if level > 0:
                layers += norm2d(norm, wide)
            active = nn.LeakyReLU(0.2, inplace=True)
            # As one layer, so that weights have the same names with and without.
            layers.append(nn.Sequential(active, nn.Dropout(dropout)) if dropout else active)
            channels = wide
        self.layers = nn.Sequential(*layers, nn.Flatten())
        # Projection (Miyato & Koyama 2018): more samples of the asked class than with the label as one more
        # plane of the image (8x8 digits, one seed: 99.0% against 98.4%), at a like distance. Concatenated
        # with these features the label could not interact with the image at all, as only a linear layer
        # follows.
        make_head = head or functools.partial(Projection, bias=has_bias)
        self.head = make_head(channels * pixels, num_classes, plain)
        # Frechet distance of 8x8 digits in pixel space after 1,200 rounds of WGAN-GP (width 32,
        # one seed): with layer norm 0.5 from N(0, 0.02) and 27 from He's; without norm 4.6 and 1.1.
        (init_he if norm == "none" else init_normal)(self)
        for layer in self.head.modules():
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(layer.weight, 0.0, 0.02)

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> what the head sees, (B, D)."""
        features: Tensor = self.layers(images)
        return features

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,) -> logits (B,)."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
