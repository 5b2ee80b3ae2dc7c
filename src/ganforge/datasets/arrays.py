"""Images or vectors in one NumPy file, .npy or .npz, such as the sample batches of guided diffusion (ADM).

Dhariwal and Nichol 2021, arXiv:2105.05233: `arr_0` uint8 (N, H, W, C) and, for a conditional model, `arr_1` int64 (N,).
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor

from ganforge.datasets.files import beside
from ganforge.datasets.samples import DataError, TensorSamples, check_fact

Array = NDArray[Any]

CHANNELS = (1, 3, 4)
IMAGE_KEYS = ("images", "arr_0")
LABEL_KEYS = ("labels", "arr_1")
_BLOCK = 1024
_MOST_CLASSES = 1_000_000


def array(
    root: str | Path | None,
    image_size: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    flip: bool = False,
    what: str = "data.root",
) -> TensorSamples:
    """The images, uint8 (N, H, W, C), (N, C, H, W) or grey (N, H, W), or the vectors, float (N, D), of a file.

    In a .npz file the samples are `images` or `arr_0`, else the only array of four dimensions, else the only array;
    labels, integers (N,) from 0 upwards, are `labels` or `arr_1`. A .npy file is mapped: it may be larger than memory.
    Images need not be square, but only square ones can be trained on.

    Args:
        root: the file.
        image_size: None takes the array's own side, another number checks it.
        channels: None takes the array's own, another number checks it, and tells the axes apart where 1, 3 and 4 do
            not. For vectors it is D.
        num_classes: None takes one more than the largest label, another number checks it, 0 drops the labels.
        flip: whether the trainer may mirror images.
        what: the setting that chose `root`, as messages name it.

    Raises:
        DataError: anything that is wrong with the file or these arguments.
    """
    if root is None:
        raise DataError(f"{what}=PATH is needed: a .npy or .npz file of images")
    path = Path(root).expanduser()
    if not path.is_file():
        raise DataError(
            f"{what}={root} is no file (seen from {Path.cwd()}): give a .npy or .npz file of images"
        )
    samples, labels = _read(path, what, labelled=num_classes != 0)
    if samples.size == 0:
        raise DataError(f"{path} holds no samples: its array has the shape {samples.shape}")
    data = _vectors(path, samples) if samples.ndim == 2 else _images(path, samples, channels)
    check_fact("channels", channels, data.shape[1], str(path))
    if image_size is not None:
        if data.ndim == 2:
            raise DataError(
                f"data.image_size={image_size} does not fit {path}, which holds vectors: leave it null"
            )
        height, width = data.shape[2:]
        if height != width:
            raise DataError(
                f"data.image_size={image_size} does not fit {path}, whose images are {width}x{height}: leave it null"
            )
        check_fact("image_size", image_size, height, str(path))
    values, classes = _labels(path, labels, num_classes, what)
    return TensorSamples(
        path.stem,
        data,
        values,
        class_names=[str(label) for label in range(classes)],
        flip=flip and data.ndim == 4,
    )


def _read(path: Path, what: str, labelled: bool) -> tuple[Array, Array | None]:
    """The samples and, where wanted and there, the labels; nothing is ever unpickled."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, NpzFile):
            with content:
                return _choose(path, content, what, labelled)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{path} does not fit in memory: save its images alone with numpy.save, as a .npy file is read in parts"
        ) from error
    except Exception as error:  # numpy, zipfile, zlib and tokenize raise a dozen kinds for a damaged file
        raise DataError(
            f"{path} cannot be read ({_reason(error)}): write it again with numpy.save"
        ) from error
    return content, None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Python objects" in text or "Object arrays" in text:
        return "it holds Python objects instead of numbers, which may carry code and are not read"
    if "pickle" in text:  # numpy's word for whatever does not begin as its own files do
        return "it is no .npy or .npz file"
    if "mmap length" in text:
        return "it is cut off"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return text or type(error).__name__


def _choose(path: Path, archive: NpzFile, what: str, labelled: bool) -> tuple[Array, Array | None]:
    assert archive.zip is not None
    names = archive.files
    if strangers := [name for name in archive.zip.namelist() if not name.endswith(".npy")]:
        raise DataError(
            f"{path} holds {strangers[0]}, which is no array of numpy.savez: for a folder or ZIP file of image files "
            "take data=image_folder"
        )
    found = [name for name in IMAGE_KEYS if name in names][:1]
    if not found:
        shapes = {name: _member(archive, name).shape for name in names}
        found = [name for name in names if len(shapes[name]) == 4] or names
        if len(found) != 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
            raise DataError(
                f"{path} has to say which array is the samples: call it images. It holds {listed}"
            )
    samples = _member(archive, found[0])
    key = next((name for name in LABEL_KEYS if name in names and name not in found), None)
    if key is None or not labelled:
        return samples, None
    labels = _member(archive, key)
    if labels.shape != samples.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {key} is {labels.dtype} {labels.shape} and cannot be the labels of {len(samples)} samples: make "
            f"it integers ({len(samples)},), or set {beside(what, 'num_classes=0')}"
        )
    return samples, labels


def _member(archive: NpzFile, name: str) -> Array:
    value = archive[name]
    if not isinstance(value, np.ndarray):  # numpy gives the bytes of a member that does not begin as an array
        raise ValueError(f"{name} in it is no array")
    return value


def _images(path: Path, values: Array, channels: int | None) -> Tensor:
    """uint8 (N, C, H, W), a view."""
    shape = values.shape
    if values.dtype != np.uint8:
        raise DataError(
            f"{path} holds {values.dtype} {shape}{_range(values)}, not uint8 in 0..255: save "
            "(127.5 * x + 127.5).round().clip(0, 255).astype(numpy.uint8) for values in -1..1, or 255 * x in place of "
            "127.5 * x + 127.5 for values in 0..1"
        )
    if values.ndim == 3:
        return _tensor(values)[:, None]
    if values.ndim == 4:
        wanted = CHANNELS if channels is None else (channels,)
        axes = [axis for axis in (1, 3) if shape[axis] in CHANNELS]
        if len(axes) == 2:
            axes = [axis for axis in axes if shape[axis] in wanted]
        if len(axes) == 1:
            return _tensor(values if axes == [1] else values.transpose(0, 3, 1, 2))
        if axes:
            raise DataError(
                f"{path}: the shape {shape} may be (N, H, W, C) or (N, C, H, W): "
                + ("set data.channels=C" if shape[1] != shape[3] else "save it in another size")
            )
    raise DataError(
        f"{path} holds uint8 {shape}: images are (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 "
        "channels, or grey (N, H, W)"
    )


def _vectors(path: Path, values: Array) -> Tensor:
    """float32 (N, D)."""
    if values.dtype.kind != "f":
        raise DataError(
            f"{path} holds {values.dtype} {values.shape}: vectors are float (N, D), images (N, H, W, C), "
            "(N, C, H, W) or (N, H, W)"
        )
    with np.errstate(over="ignore"):
        points = values.astype(np.float32)
    if not np.isfinite(points).all():
        raise DataError(
            f"{path} holds NaN, infinity or numbers beyond float32 among its vectors: remove them"
        )
    return _tensor(points)


def _tensor(values: Array) -> Tensor:
    """A view of an array that may be a read-only map of a file, to which nobody writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(values)


def _range(values: Array) -> str:
    """`, from LOWEST to HIGHEST`, for numbers."""
    if values.dtype.kind not in "biuf":
        return ""
    extremes = [
        (block.min(), block.max())
        for block in (values[i : i + _BLOCK] for i in range(0, len(values), _BLOCK))
    ]
    lowest, highest = np.min([low for low, _ in extremes]), np.max([high for _, high in extremes])
    return f", from {lowest:.4g} to {highest:.4g}"


def _labels(
    path: Path, labels: Array | None, num_classes: int | None, what: str
) -> tuple[Tensor | None, int]:
    """Labels int64 (N,) and how many classes there are."""
    if num_classes == 0:
        return None, 0
    if labels is None:
        check_fact("num_classes", num_classes, 0, str(path))
        return None, 0
    lowest, found = int(labels.min()), int(labels.max()) + 1
    if lowest < 0 or found > _MOST_CLASSES:
        raise DataError(
            f"{path} has the label {lowest if lowest < 0 else found - 1}: labels count from 0 upwards; without them: "
            f"{beside(what, 'num_classes=0')}"
        )
    # More classes than labels seen is fine: the file may hold a part of a larger set.
    if num_classes is None or num_classes < found:
        check_fact("num_classes", num_classes, found, str(path))
        num_classes = found
    return torch.from_numpy(labels.astype(np.int64)), num_classes
