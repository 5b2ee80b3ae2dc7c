"""An autoencoder in the discriminator's place (Berthelot et al. 2017, "BEGAN", arXiv:1703.10717, figure 1; Zhao et al.
2017, "Energy-based Generative Adversarial Network", arXiv:1609.03126): what it cannot rebuild is not real.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from ganforge.networks.image_size import supported_image_size

IMAGE_SIZES = (8, 16, 32, 64, 128)

Energy = Literal["l1", "l2"]


class Discriminator(nn.Module):
    """Image -> code -> image; the logit is minus the energy, how far the two images are apart.

    3x3 convolutions with ELU, two a level; on the way down `width`, 2·`width`, ... channels, a level's last convolution
    with stride 2; on the way up `width` everywhere, twice the size to the nearest. The smallest maps are 8x8, with
    images of 8 and 16 4x4. Vectors (`image_size` None) take two hidden layers of `width` each way.

    Args:
        width: n of the paper.
        code_dim: length of the code, h of the paper.
        energy: l1, the mean of |x - D(x)| over an image's numbers (BEGAN's), or l2, the 2-norm of x - D(x) (EBGAN's).

    Raises:
        ValueError: an unsupported image size, or an energy that is not known.
    """

    def __init__(
        self,
        image_size: int | None,
        channels: int,
        width: int = 64,
        code_dim: int = 64,
        energy: Energy = "l1",
    ) -> None:
        super().__init__()
        if energy not in get_args(Energy):
            raise ValueError(f"energy={energy}: it can be {' or '.join(get_args(Energy))}")
        self.energy = energy
        if image_size is None:
            self.encoder = _perceptron(channels, width, code_dim)
            self.decoder = _perceptron(code_dim, width, channels)
            return
        size = supported_image_size(image_size, IMAGE_SIZES, network="autoencoder")
        bottom = 8 if size > 16 else 4
        levels = (size // bottom).bit_length() - 1
        down: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ELU()]
        for level in range(levels + 1):
            now, last = width * (level + 1), level == levels
            then = now if last else now + width
            down += [nn.Conv2d(now, now, 3, padding=1), nn.ELU()]
            down += [nn.Conv2d(now, then, 3, stride=1 if last else 2, padding=1), nn.ELU()]
        up: list[nn.Module] = [
            nn.Linear(code_dim, width * bottom**2),
            nn.Unflatten(1, (width, bottom, bottom)),
        ]
        for level in range(levels + 1):
            for _ in range(2):
                up += [nn.Conv2d(width, width, 3, padding=1), nn.ELU()]
            if level < levels:
                up.append(nn.Upsample(scale_factor=2.0))
        widest = width * (levels + 1)
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(widest * bottom**2, code_dim))
        self.decoder = nn.Sequential(*up, nn.Conv2d(width, channels, 3, padding=1))

    def features(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> codes (B, code_dim)."""
        codes: Tensor = self.encoder(images)
        return codes

    def judged(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, C, H, W) -> logits (B,), at most 0, and codes (B, code_dim)."""
        codes = self.features(images)
        difference = (images - self.decoder(codes)).flatten(1)
        difference = difference.to(torch.promote_types(difference.dtype, torch.float32))
        norm = difference.abs().mean(dim=1) if self.energy == "l1" else vector_norm(difference, dim=1)
        return -norm, codes

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, C, H, W), labels int64 (B,), which are ignored -> logits (B,)."""
        return self.judged(images)[0]


def _perceptron(before: int, width: int, after: int) -> nn.Sequential:
    layers = [nn.Linear(before, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, after)]
    return nn.Sequential(*layers)
