"""Pixels: uint8 on disk and screen, [-1, 1] in networks; grids, PNG files, animations, 2-D scatter plots."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, PngImagePlugin
from torch import Tensor

PAPER = (255, 255, 255)
REAL_COLOUR = (150, 156, 168)
GENERATED_COLOUR = (38, 70, 200)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255, any shape, to float32 in [-1, 1]: x / 127.5 - 1."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1], any shape, to uint8: round(127.5 x + 127.5), clamped; undoes `to_float` exactly."""
    return (images.detach().to(torch.float32) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def grid(images: Tensor, columns: int, padding: int = 2, min_side: int = 32) -> Tensor:
    """Lays out uint8 (N, C, H, W), row by row, as one uint8 picture (C, H', W') on white.

    Images whose longer side is below `min_side` are first enlarged by a whole number of times, so that
    single pixels stay visible and sharp.
    """
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(f"a grid needs images of shape (N, C, H, W) with N > 0, not {tuple(images.shape)}")
    if columns < 1:
        raise ValueError(f"a grid needs at least one column, not {columns}")
    images = images.cpu()
    zoom = -(-min_side // max(images.shape[-2:]))
    if zoom > 1:
        images = images.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    cell_height, cell_width = height + padding, width + padding
    sheet = torch.full(
        (channels, rows * cell_height + padding, columns * cell_width + padding), 255, dtype=torch.uint8
    )
    for index, image in enumerate(images):
        top = padding + index // columns * cell_height
        left = padding + index % columns * cell_width
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) with C = 1 (grey), 3 (RGB) or 4 (RGBA) to a Pillow image."""
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"a picture is uint8 (C, H, W) with 1, 3 or 4 channels, not {image.dtype} {tuple(image.shape)}"
        )
    array = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if image.shape[0] == 1 else array)


def save_png(path: str | Path, image: Tensor, text: Mapping[str, str] | None = None) -> None:
    """Writes uint8 (C, H, W), C = 1, 3 or 4, as a PNG file with `text` in tEXt (beyond Latin-1: iTXt) chunks.

    The file appears complete or not at all, and missing folders are made.
    """
    picture = to_pil(image)
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    _write_whole(Path(path), lambda part: picture.save(part, format="PNG", pnginfo=info))


def read_png(path: str | Path) -> Tensor:
    """The pixels of a picture that `save_png` wrote: uint8 (C, H, W)."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def save_animation(path: str | Path, frames: Sequence[Tensor], milliseconds: int = 100) -> None:
    """Writes frames uint8 (C, H, W) as an endless animation, `milliseconds` each, to a .webp or .gif file."""
    path = Path(path)
    format_name = {".webp": "WEBP", ".gif": "GIF"}.get(path.suffix.lower())
    if format_name is None:
        raise ValueError(f"an animation's file name ends in .webp or .gif, unlike {path}")
    if not frames:
        raise ValueError(f"an animation needs at least one frame: there is none for {path}")
    # RGB throughout: the WebP writer knows no grey, and a GIF keeps one kind of palette.
    first, *rest = [to_pil(frame).convert("RGB") for frame in frames]
    # Lossless WebP: lossy would hide what a generator does to single pixels.
    options = {"lossless": True} if format_name == "WEBP" else {}
    _write_whole(
        path,
        lambda part: first.save(
            part,
            format=format_name,
            save_all=True,
            append_images=rest,
            duration=milliseconds,
            loop=0,
            **options,
        ),
    )


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside the target and renames: a reader, or a killed run, never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def scatter(points: Tensor, extent: float, size: int = 256, reference: Tensor | None = None) -> Tensor:
    """A picture of 2-D samples: `points` (N, 2) in blue over `reference` (M, 2) in faint grey, on white.

    Shows the square [-extent, extent]^2, y upwards, as uint8 (3, size, size); points outside it or not finite
    are left out. Dots are soft discs that overlap like ink, so the depth of the colour shows the density.
    """
    if not extent > 0:
        raise ValueError(f"a scatter picture needs an extent above 0, not {extent}")
    picture = torch.tensor(PAPER, dtype=torch.float32)[:, None, None].expand(3, size, size)
    layers = [(points, GENERATED_COLOUR, 1.1, 1.0)]
    if reference is not None:
        layers.insert(0, (reference, REAL_COLOUR, 0.5, 0.55))
    for layer, colour, ink, opacity in layers:
        cover = opacity * (1 - torch.exp(-ink * _dots(layer, extent, size)))
        picture = picture * (1 - cover) + torch.tensor(colour, dtype=torch.float32)[:, None, None] * cover
    return picture.round().clamp(0, 255).to(torch.uint8)


def _dots(points: Tensor, extent: float, size: int) -> Tensor:
    """How many dots, float32 (size, size), cover each pixel: spread over four, then blurred (peak 1)."""
    if points.dim() != 2 or points.shape[1] != 2:
        raise ValueError(f"a scatter picture needs points of shape (N, 2), not {tuple(points.shape)}")
    points = points.detach().to("cpu", torch.float32)
    # NaN and infinity compare false, so this drops them too.
    points = points[(points.abs() <= extent).all(dim=1)]
    column = (points[:, 0] / extent + 1) / 2 * (size - 1)
    row = (1 - points[:, 1] / extent) / 2 * (size - 1)
    # A margin of one pixel takes the right and lower neighbours of dots on the edge.
    left, top = column.floor(), row.floor()
    canvas = torch.zeros((size + 1) * (size + 1))
    for down in (0, 1):
        for right in (0, 1):
            share = (1 - (row - top - down).abs()) * (1 - (column - left - right).abs())
            canvas.index_add_(0, ((top + down) * (size + 1) + left + right).long(), share)
    canvas = canvas.view(1, 1, size + 1, size + 1)
    sigma = max(size / 256, 0.5)
    reach = int(3 * sigma) + 1
    bell = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float32) ** 2) / (2 * sigma**2))
    canvas = F.conv2d(canvas, bell.view(1, 1, 1, -1), padding=(0, reach))
    canvas = F.conv2d(canvas, bell.view(1, 1, -1, 1), padding=(reach, 0))
    return canvas[0, 0, :size, :size]
