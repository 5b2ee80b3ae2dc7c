"""Image files of any mode, depth and aspect to uint8 tensors of one size and one number of channels."""

import io
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

Resize = Literal["crop", "pad", "stretch", "refuse"]

# What a file's content may be, whatever its name: Pillow's other readers are slow, or run other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
LANCZOS = Image.Resampling.LANCZOS


class WrongSizeError(ValueError):
    """An image that may not be resized has another size than asked for."""


def open_image(content: bytes) -> Image.Image:
    """The upright (by EXIF) and fully decoded image; one of Pillow's many errors when it is corrupt."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    image.load()
    return ImageOps.exif_transpose(image)


def is_grey(image: Image.Image) -> bool:
    """Whether the file stores one channel (beside alpha); a palette or RGB file of greys counts as colour."""
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def decode(content: bytes, height: int, width: int, channels: int, resize: Resize) -> Tensor:
    """Decodes one image file to uint8 (channels, height, width), a square unless `resize` is `refuse`.

    `crop` cuts the largest central square, `pad` adds black (transparent for 4 channels) to the shorter side,
    and `stretch` ignores the aspect; all resample with Pillow's antialiased Lanczos filter. `refuse` takes the
    pixels as they are. Transparency is composited on white unless `channels` is 4.

    Raises:
        WrongSizeError: `resize` is `refuse` and the image has another size.
    """
    image = to_mode(open_image(content), channels)
    if resize != "refuse":
        image = resample(image, height, resize)
    elif image.size != (width, height):
        raise WrongSizeError(f"{image.width}x{image.height}")
    array = np.asarray(image)
    return torch.from_numpy(array.copy()).view(height, width, channels).permute(2, 0, 1).contiguous()


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """To 8 bits and 1 (grey), 3 (RGB) or 4 (RGBA) channels."""
    if image.mode.startswith("I"):
        # Pillow clips 16 bits to 8 when it converts; 65535 / 257 = 255 keeps black black and white white.
        image = Image.fromarray(
            (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def resample(image: Image.Image, size: int, resize: Resize) -> Image.Image:
    """To (size, size) by `crop`, `pad` or `stretch`; an image that already is comes back untouched."""
    if resize == "crop" and image.width != image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if resize == "pad":
        longer = max(image.size)
        width, height = (max(1, round(side * size / longer)) for side in image.size)
        sheet = Image.new(image.mode, (size, size))
        sheet.paste(image.resize((width, height), LANCZOS), ((size - width) // 2, (size - height) // 2))
        return sheet
    return image if image.size == (size, size) else image.resize((size, size), LANCZOS)


def lanczos(images: Tensor, size: int) -> Tensor:
    """uint8 (N, C, H, W) with C = 1 or 3 to (N, C, size, size), as `resize=stretch` does it."""
    if images.shape[-2:] == (size, size):
        return images
    scaled = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for source, target in zip(images.flatten(0, 1), scaled.flatten(0, 1), strict=True):
        target.copy_(
            torch.from_numpy(np.array(Image.fromarray(source.numpy()).resize((size, size), LANCZOS)))
        )
    return scaled
