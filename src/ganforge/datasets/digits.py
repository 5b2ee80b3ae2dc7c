"""1,797 real handwritten digits, 8x8, which come with scikit-learn (Alpaydin and Kaynak, UCI 1998)."""

import torch
from sklearn.datasets import load_digits

from ganforge.datasets.pictures import lanczos
from ganforge.datasets.samples import DataError, TensorSamples, check_fact, check_num_classes


def digits(
    image_size: int | None = 8, channels: int | None = 1, num_classes: int | None = 10
) -> TensorSamples:
    """Grey digits; their levels 0..16 become round(255 x / 16). Other sizes than 8 by antialiased Lanczos."""
    check_fact("channels", channels, 1, "digits")
    labelled = check_num_classes(num_classes, 10, "digits")
    if image_size is not None and image_size < 1:
        raise DataError(f"data.image_size={image_size} is no size: it must be at least 1")
    source = load_digits()
    images = (torch.from_numpy(source.images) * 255 / 16).round().to(torch.uint8)[:, None]
    return TensorSamples(
        "digits",
        lanczos(images, image_size or 8),
        labels=torch.from_numpy(source.target) if labelled else None,
        class_names=[str(digit) for digit in range(10)] if labelled else [],
    )
