"""The check of the image size that the convolutional networks share."""

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
