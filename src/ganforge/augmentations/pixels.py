"""Changes of a batch of images, each with its own numbers for every image: moves, turns and colours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# The low-pass filter of the orthogonal wavelet "sym6" (Daubechies 1992, "Ten Lectures on Wavelets", section 8.1).
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)


def blit(images: Tensor, flip: Tensor, quarters: Tensor, shift: Tensor) -> Tensor:
    """Mirrored left to right, then turned by quarters of a circle, then shifted: pixels move, none is blended.

    What a shift uncovers is filled by reflection.

    Args:
        images: (B, C, N, N).
        flip: bool (B,).
        quarters: int64 (B,), anticlockwise.
        shift: int64 (B, 2), rows down and columns to the right, below N in size.
    """
    n = images.shape[-1]
    rows, columns = _source(n, shift)
    rows, columns = (_reflected(rows, n), _reflected(columns, n))
    # Twice the distance from the middle, which turns without leaving the whole numbers.
    down, right = 2 * rows - (n - 1), 2 * columns - (n - 1)
    cosine = torch.tensor([1, 0, -1, 0], device=images.device)[quarters % 4, None, None]
    sine = torch.tensor([0, 1, 0, -1], device=images.device)[quarters % 4, None, None]
    down, right = cosine * down + sine * right, cosine * right - sine * down
    right = torch.where(flip[:, None, None], -right, right)
    return _taken(images, (down + n - 1) // 2, (right + n - 1) // 2)


def translate(images: Tensor, shift: Tensor) -> Tensor:
    """Shifted as in `blit`, with zeros, which are grey, in what is uncovered."""
    n = images.shape[-1]
    rows, columns = _source(n, shift)
    inside = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < n)
    return _taken(images, rows.clamp(0, n - 1), columns.clamp(0, n - 1)) * inside[:, None]


def _source(n: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, N, 1) and columns (B, 1, N) that shifted pixels come from, as one (B, N, N) each."""
    index = torch.arange(n, device=shift.device)
    rows = (index - shift[:, :1])[:, :, None].expand(-1, n, n)
    columns = (index - shift[:, 1:])[:, None, :].expand(-1, n, n)
    return rows, columns


def _reflected(index: Tensor, n: int) -> Tensor:
    return (n - 1) - ((n - 1) - index.abs()).abs()


def _taken(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    flat = (rows * images.shape[-1] + columns).flatten(1)[:, None]
    return images.flatten(2).gather(2, flat.expand(-1, images.shape[1], -1)).view_as(images)


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Each image under an affine map, filled by reflection, sampled at twice the resolution.

    Args:
        images: (B, C, N, N).
        inverse: (B, 3, 3), from places in the result to places in the image, both (x, y, 1) with x and y in [-1, 1].
    """
    fine = _upsampled(images)
    grid = F.affine_grid(inverse[:, :2], list(fine.shape), align_corners=False)
    return _downsampled(F.grid_sample(fine, grid, padding_mode="reflection", align_corners=False))


def _upsampled(images: Tensor) -> Tensor:
    """(B, C, N, N) -> (B, C, 2N, 2N); `_downsampled` takes it back, but for the borders."""
    b, c, n, _ = images.shape
    x = F.pad(images.reshape(b * c, 1, n, n), (3, 3, 3, 3), mode="reflect")
    taps = images.new_tensor(SYM6) * math.sqrt(2)
    x = F.conv_transpose2d(x, taps.view(1, 1, -1, 1), stride=(2, 1))
    x = F.conv_transpose2d(x, taps.view(1, 1, 1, -1), stride=(1, 2))
    start = 2 * 3 + 5
    return x[:, :, start : start + 2 * n, start : start + 2 * n].reshape(b, c, 2 * n, 2 * n)


def _downsampled(images: Tensor) -> Tensor:
    b, c, n, _ = images.shape
    x = F.pad(images.reshape(b * c, 1, n, n), (5, 5, 5, 5), mode="reflect")
    taps = images.new_tensor(SYM6) / math.sqrt(2)
    x = F.conv2d(x, taps.view(1, 1, -1, 1), stride=(2, 1))
    return F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, 2)).reshape(b, c, n // 2, n // 2)


def recolor(images: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel (r, g, b, 1) of (B, 3, H, W) times its image's matrix (B, 4, 4)."""
    return torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], images) + matrix[:, :3, 3, None, None]
