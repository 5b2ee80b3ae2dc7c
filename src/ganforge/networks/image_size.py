"""The check of the image size that the convolutional networks share, and the widths of those that halve to 4x4."""

from collections.abc import Collection


def supported_image_size(image_size: int | None, supported: Collection[int], *, network: str) -> int:
    """Returns `image_size` when `network` can make it.

    Raises:
        ValueError: `image_size` is None (the data are vectors) or not among `supported`.
    """
    if image_size is None:
        raise ValueError(
            f"image_size=None means vectors, and {network} makes images only; use model=mlp for vectors"
        )
    if image_size not in supported:
        sizes = ", ".join(map(str, sorted(supported)))
        raise ValueError(
            f"{network} does not support image_size={image_size}; supported: {sizes} "
            "(resize the data, or use model=mlp, which takes any size)"
        )
    return image_size


POWERS_OF_TWO = (8, 16, 32, 64, 128, 256, 512, 1024)


def level_widths(
    image_size: int | None, width: int | None, max_width: int, *, features: int, network: str
) -> dict[int, int]:
    """Channels of each level by its height, from 4 up: doubled from the image's level down, up to `max_width`.

    Args:
        width: channels at the image's level; None for `features / image_size`.
        features: channels of a level times its height, where `width` is None.

    Raises:
        ValueError: `image_size` is None or no power of two from 8 to 1024.

    >>> level_widths(32, 64, 256, features=32768, network="stylegan2")
    {4: 256, 8: 256, 16: 128, 32: 64}
    """
    size = supported_image_size(image_size, POWERS_OF_TWO, network=network)
    if width is not None:
        features = width * size
    heights = [4 << level for level in range(size.bit_length() - 2)]
    return {height: min(features // height, max_width) for height in heights}
