"""Changes of a batch of images, each with its own numbers for every image: moves, turns and colours."""

from __future__ import annotations

import functools
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
    up, down = (m.to(images) for m in _resampling(images.shape[-1]))
    fine = up @ images @ up.T
    grid = F.affine_grid(inverse[:, :2], list(fine.shape), align_corners=False)
    return down @ F.grid_sample(fine, grid, padding_mode="reflection", align_corners=False) @ down.T


@functools.lru_cache(maxsize=8)
def _resampling(n: int) -> tuple[Tensor, Tensor]:
    """Matrices (2n, n) and (n, 2n) that double and halve a side by the filter, filled by reflection at the borders.

    One after the other they change nothing but near the borders, as the filter is orthogonal to its even shifts. As
    products they are many times faster than convolutions of single channels.
    """
    up, down = torch.zeros(2 * n, n, dtype=torch.float64), torch.zeros(n, 2 * n, dtype=torch.float64)
    for coarse in range(-len(SYM6), n + len(SYM6)):
        for k, tap in enumerate(SYM6):
            fine = 2 * coarse + k - (len(SYM6) // 2 - 1)  # tap 5½ lies over the middle of the coarse pixel
            if 0 <= fine < 2 * n:
                up[fine, _mirrored(coarse, n)] += tap * math.sqrt(2)
            if 0 <= coarse < n:
                down[coarse, _mirrored(fine, 2 * n)] += tap / math.sqrt(2)
    return up, down


def _mirrored(index: int, n: int) -> int:
    return (n - 1) - abs((n - 1) - abs(index) % (2 * n - 2)) if n > 1 else 0


def recolor(images: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel (r, g, b, 1) of (B, 3, H, W) times its image's matrix (B, 4, 4)."""
    return torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], images) + matrix[:, :3, 3, None, None]
