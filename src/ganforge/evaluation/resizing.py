"""How images come to the size and range that a network takes: by named protocols, since FID changes with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

Resize = Callable[[Tensor, int], Tensor]
"""uint8 (B, C, H, W) in [0, 255], size -> float32 (B, C, size, size) in [0, 255]."""

_BLOCK = 2**24  # input values resized at a time in float64


def tensorflow(images: Tensor, size: int) -> Tensor:
    """Bilinear without antialiasing, corners as TensorFlow 1 had them: what the published FID was defined with."""
    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(size, size), align_corners=False
    )
    return resized


def clean(images: Tensor, size: int) -> Tensor:
    """Pillow's antialiased bicubic of each channel in floating point, clipped but not rounded.

    Parmar et al. 2022 (arXiv 2104.11222). Computed in float64, which agrees with Pillow to 1e-4; float32 is off
    by up to 0.01.
    """
    rows = max(1, _BLOCK // max(1, images[0].numel()))
    source = images.cpu() if images.device.type == "mps" else images  # MPS has no float64
    parts = [
        F.interpolate(part.double(), (size, size), mode="bicubic", antialias=True).clamp(0, 255).float()
        for part in torch.split(source, rows)
    ]
    return torch.cat(parts).to(images.device)


def bilinear(images: Tensor, size: int) -> Tensor:
    """PyTorch's bilinear with antialiasing."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)


PROTOCOLS: dict[str, tuple[Resize, str]] = {
    "tensorflow": (tensorflow, "bilinear as in TensorFlow 1"),
    "clean": (clean, "antialiased bicubic as in Pillow, clipped, not rounded"),
    "bilinear": (bilinear, "bilinear with antialiasing"),
}
"""Name -> how, and the same in words for the protocol stamp."""


@dataclass(frozen=True)
class Preparation:
    """uint8 images -> what a network takes: right channels, right size, and (x / 255 - mean) / std.

    Attributes:
        protocol: one of `PROTOCOLS`.
        size: pixels of a side; None leaves images as they are.
        mean, std: of each channel, for pixels in [0, 1]. Their number is that of the channels.

    Raises:
        ValueError: an unknown protocol, a size below 1, no channels, or a std that is not positive.
    """

    protocol: str
    size: int | None
    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"resize is {self.protocol}; it can be {', '.join(PROTOCOLS)}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"image_size is {self.size}, but images have at least 1 pixel")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(
                f"there are {len(self.mean)} means and {len(self.std)} standard deviations; give one for each of "
                "1 or 3 channels"
            )
        if not all(std > 0 for std in self.std):
            raise ValueError(f"std is {list(self.std)}, but has to be positive")

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W) -> float32 (B, channels, size, size)."""
        x = self._in_channels(self._resized(images))
        mean, std = (
            torch.tensor([255 * value for value in values], dtype=x.dtype, device=x.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return (x - mean) / std

    def __str__(self) -> str:
        if self.size is None:
            return "not resized"
        return f"{self.size}x{self.size}, {PROTOCOLS[self.protocol][1]}"

    def _resized(self, images: Tensor) -> Tensor:
        resize, _ = PROTOCOLS[self.protocol]
        return images.float() if self.size is None else resize(images, self.size)

    def _in_channels(self, x: Tensor) -> Tensor:
        """Grey is repeated, colour averaged."""
        channels = len(self.mean)
        if x.shape[1] == channels:
            return x
        return x.mean(dim=1, keepdim=True) if channels == 1 else x.expand(-1, channels, -1, -1)
