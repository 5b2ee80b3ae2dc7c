"""Your own images: any folder or ZIP file of JPEG, PNG, WebP or BMP files, of any mode, size and aspect."""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from ganforge.datasets.files import Files, beside, open_files
from ganforge.datasets.folder_labels import Labels, find_labels
from ganforge.datasets.pictures import MODES, Resize, WrongSizeError, decode, is_grey, open_image
from ganforge.datasets.samples import DataError, Samples, TensorSamples
from ganforge.progress import show_progress

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
CHUNK = 64

OnCorrupt = Literal["refuse", "skip"]

log = logging.getLogger(__name__)


class UnfitImageError(DataError):
    """An image file cannot be taken.

    Attributes:
        fault: which and why, without a way out.
    """

    fault = ""


class CorruptImageError(UnfitImageError):
    """It cannot be decoded."""


class OddImageError(UnfitImageError):
    """It has another size than all, and may not be resized."""


class StreamedImages(Samples):
    """Images that are read and decoded when asked for; may be pickled and used in any process."""

    def __init__(
        self,
        files: Files,
        names: Sequence[str],
        labels: Labels,
        shape: tuple[int, int, int],
        resize: Resize,
        flip: bool,
    ) -> None:
        super().__init__(
            name=files.root.name if files.root.is_dir() else files.root.stem,
            shape=shape,
            labels=labels.values,
            class_names=labels.class_names,
            num_classes=labels.num_classes,
            in_memory=False,
            flip=flip,
        )
        self.files = files
        self.names = list(names)
        self.resize = resize

    def __getitem__(self, index: int) -> Tensor:
        channels, height, width = self.shape
        name = self.names[index]
        try:
            return decode(self.files.read(name), height, width, channels, self.resize)
        except WrongSizeError as error:
            raise _wrong_size(self.files, name, f"{error}", f"{width}x{height}") from None
        except Exception as error:  # Pillow and zipfile raise a dozen kinds for a damaged file
            raise _corrupt(self.files, name, error) from error

    def batch(self, indices: Tensor) -> Tensor:
        return torch.stack([self[index] for index in indices.tolist()])

    def fingerprint(self) -> str:
        """Of names, sizes, and CRCs (ZIP) or times of change (folder), instead of pixels."""
        digest = hashlib.sha256(repr((self.shape, self.resize, self.num_classes)).encode())
        for name, label in zip(self.names, self.labels.tolist(), strict=True):
            digest.update(f"{name}\n{self.files.stamp(name)}\n{label}\n".encode())
        return digest.hexdigest()


def image_folder(
    root: str | Path | None,
    image_size: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    resize: Resize = "crop",
    flip: bool = False,
    on_corrupt: OnCorrupt = "refuse",
    verify: bool = True,
    memory_gb: float = 1.0,
    what: str = "data.root",
) -> Samples:
    """All images below a folder or in a ZIP file, sorted by name.

    Args:
        root: the folder or ZIP file.
        image_size: the side of the square images; None takes the first image's shorter side, or with `refuse` its
            width and height.
        channels: 1, 3 or 4 (RGBA); None takes 1 when the first image is grey, else 3. Transparency is
            composited on white unless 4.
        num_classes: None takes what dataset.json or the sub-folders say, another number checks it, 0 drops
            the labels.
        resize: how to make an image square: `crop` its centre, `pad` with black, or `stretch`. `refuse` takes
            pixels as they are, which figures of images that somebody else made rest on: all images must have one
            size, square or not, and only square ones can be trained on.
        flip: whether the trainer may mirror images.
        on_corrupt: whether a damaged image stops the program or is left out with a warning.
        verify: whether a set too large for memory is decoded once, before training, to find damaged images.
        memory_gb: sets of up to this many decoded gigabytes (10^9 bytes) live in memory, larger are streamed.
        what: the setting that chose `root`, as messages name it.

    Raises:
        DataError: anything that is wrong with the files or these arguments.
    """
    streamed = open_images(root, image_size, channels, num_classes, resize, flip, on_corrupt, what)
    files, names = streamed.files, streamed.names
    shape = (streamed.shape[0], streamed.shape[1], streamed.shape[2])
    labels = Labels(streamed.labels, streamed.num_classes, streamed.class_names)
    if len(names) * math.prod(shape) > memory_gb * 1e9:
        if not verify:
            return streamed
        kept = _decode_all(streamed, lambda index, image: None, on_corrupt, "verifying images")
        chosen = Labels(labels.values[kept], labels.num_classes, labels.class_names)
        kept_names = [names[index] for index in kept]
        return StreamedImages(files, kept_names, chosen, shape, resize, flip)
    data = torch.empty(len(names), *shape, dtype=torch.uint8)
    kept = _decode_all(streamed, data.__setitem__, on_corrupt, "loading images")
    if len(kept) < len(names):
        data = data[kept]
    return TensorSamples(
        streamed.name,
        data,
        labels.values[kept],
        labels.class_names,
        num_classes=labels.num_classes,
        flip=flip,
    )


def open_images(
    root: str | Path | None,
    image_size: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    resize: Resize = "crop",
    flip: bool = False,
    on_corrupt: OnCorrupt = "refuse",
    what: str = "data.root",
) -> StreamedImages:
    """What `image_folder` takes, before anything but the first image is decoded."""
    _check_arguments(image_size, channels, resize, on_corrupt, what)
    files = open_files(root, what)
    names = [name for name in files.names if name.lower().endswith(EXTENSIONS)]
    if not names:
        found = "no files" if not files.names else f"{len(files.names)} files but no images"
        raise DataError(f"{what}={files.root} holds {found}: images end in {', '.join(EXTENSIONS)}")
    labels = find_labels(files, names, num_classes)
    shape = _shape(files, names, image_size, channels, resize, on_corrupt)
    return StreamedImages(files, names, labels, shape, resize, flip)


def _check_arguments(
    image_size: int | None, channels: int | None, resize: str, on_corrupt: str, what: str
) -> None:
    if image_size is not None and image_size < 1:
        raise DataError(f"{beside(what, f'image_size={image_size}')} is no size: it must be at least 1")
    if channels is not None and channels not in MODES:
        raise DataError(
            f"{beside(what, f'channels={channels}')} is not known: take 1 (grey), 3 (RGB) or 4 (RGBA)"
        )
    for key, value, known in (("resize", resize, Resize), ("on_corrupt", on_corrupt, OnCorrupt)):
        if value not in get_args(known):
            raise DataError(
                f"{beside(what, f'{key}={value}')} is not known: take one of {', '.join(get_args(known))}"
            )


def _shape(
    files: Files,
    names: Sequence[str],
    image_size: int | None,
    channels: int | None,
    resize: Resize,
    on_corrupt: OnCorrupt,
) -> tuple[int, int, int]:
    """Channels, height and width of all images: as asked for, else as the first image has them."""
    if image_size is not None and channels is not None:
        return channels, image_size, image_size
    (width, height), first_channels = _first_facts(files, names, on_corrupt)
    if image_size is not None or resize != "refuse":
        width = height = image_size or min(width, height)
    return channels or first_channels, height, width


def _first_facts(
    files: Files, names: Sequence[str], on_corrupt: OnCorrupt
) -> tuple[tuple[int, int], Literal[1, 3]]:
    """Width and height, and the channels, of the first image that can be decoded."""
    for name in names:
        try:
            image = open_image(files.read(name))
        except Exception as error:
            if on_corrupt == "refuse":
                raise _corrupt(files, name, error) from error
        else:
            return image.size, 1 if is_grey(image) else 3
    raise _all_corrupt(files, len(names))


def _decode_all(
    images: StreamedImages, receive: Callable[[int, Tensor], None], on_corrupt: OnCorrupt, what: str
) -> list[int]:
    """Decodes every image, on all cores, into `receive(index, image)`; the indices of the undamaged ones."""

    def decode_chunk(start: int) -> list[tuple[int, CorruptImageError]]:
        failures = []
        for index in range(start, min(start + CHUNK, len(images))):
            try:
                receive(index, images[index])
            except CorruptImageError as error:
                failures.append((index, error))
        return failures

    failures: list[tuple[int, CorruptImageError]] = []

    def collect(chunks: Iterator[list[tuple[int, CorruptImageError]]]) -> Iterator[int]:
        for chunk in chunks:
            if chunk and on_corrupt == "refuse":
                raise chunk[0][1]
            failures.extend(chunk)
            yield CHUNK

    # Pillow's decoders and filters let other threads run.
    pool = ThreadPoolExecutor(default_threads())
    try:
        decoded = collect(pool.map(decode_chunk, range(0, len(images), CHUNK)))
        for _ in show_progress(decoded, len(images), what, size=int):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        if len(failures) == len(images):
            raise _all_corrupt(images.files, len(images))
        shown = ", ".join(images.names[index] for index, _ in failures[:5])
        more = ", ..." if len(failures) > 5 else ""
        log.warning(
            "%s: left out %d of %d images as corrupt: %s%s",
            images.files.root,
            len(failures),
            len(images),
            shown,
            more,
        )
    corrupt = {index for index, _ in failures}
    return [index for index in range(len(images)) if index not in corrupt]


def default_threads() -> int:
    """As many as there are cores for this process, up to 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def _corrupt(files: Files, name: str, error: Exception) -> CorruptImageError:
    reason = (
        "it is no JPEG, PNG, WebP or BMP file" if isinstance(error, UnidentifiedImageError) else str(error)
    )
    fault = f"{files.root}/{name} cannot be decoded ({reason})"
    corrupt = CorruptImageError(
        f"{fault}: replace or remove it, or set {beside(files.what, 'on_corrupt=skip')}"
    )
    corrupt.fault = fault
    return corrupt


def _wrong_size(files: Files, name: str, found: str, expected: str) -> OddImageError:
    size = beside(files.what, "image_size=SIZE")
    way_out = f"{size} crops all to one size"  # as evaluation reads them
    if size != "image_size=SIZE":
        resize = beside(files.what, "resize=crop")
        way_out = f"{resize}, pad or stretch and {size} make all images one size"
    fault = (
        f"{files.root}/{name} is {found} pixels (width x height), not {expected}, and nothing may be resized"
    )
    odd = OddImageError(f"{fault}: remove it, or {way_out}")
    odd.fault = fault
    return odd


def _all_corrupt(files: Files, count: int) -> DataError:
    return DataError(
        f"{files.what}={files.root}: none of its {count} images can be decoded, so nothing is left"
    )
