"""The field's small benchmarks, downloaded by torchvision when absent: MNIST (LeCun et al. 1998),
Fashion-MNIST (Xiao et al. 2017), KMNIST (Clanuwat et al. 2018), CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

import gzip
import math
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.functional import pad
from torchvision.datasets import CIFAR10, CIFAR100, KMNIST, MNIST, FashionMNIST

from ganforge.datasets.pictures import lanczos
from ganforge.datasets.samples import DataError, TensorSamples, check_fact, check_num_classes

Split = Literal["train", "test"]
Resize = Literal["lanczos", "pad"]

DOWNLOAD_TIMEOUT_SECONDS = 30.0

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Asked:
    """What the functions below were asked for."""

    root: str | Path | None
    split: Split
    image_size: int | None
    channels: int | None
    num_classes: int | None
    resize: Resize
    flip: bool


def mnist(
    root: str | Path | None,
    split: Split = "train",
    image_size: int | None = 28,
    channels: int | None = 1,
    num_classes: int | None = 10,
    resize: Resize = "lanczos",
    flip: bool = False,
) -> TensorSamples:
    """60,000 (test: 10,000) grey handwritten digits of 28x28, in 10 classes."""
    asked = Asked(root, split, image_size, channels, num_classes, resize, flip)
    return _idx_images("mnist", MNIST, asked)


def fashion_mnist(
    root: str | Path | None,
    split: Split = "train",
    image_size: int | None = 28,
    channels: int | None = 1,
    num_classes: int | None = 10,
    resize: Resize = "lanczos",
    flip: bool = False,
) -> TensorSamples:
    """60,000 (test: 10,000) grey pictures of clothes of 28x28, in 10 classes."""
    asked = Asked(root, split, image_size, channels, num_classes, resize, flip)
    return _idx_images("fashion_mnist", FashionMNIST, asked)


def kmnist(
    root: str | Path | None,
    split: Split = "train",
    image_size: int | None = 28,
    channels: int | None = 1,
    num_classes: int | None = 10,
    resize: Resize = "lanczos",
    flip: bool = False,
) -> TensorSamples:
    """60,000 (test: 10,000) grey cursive Japanese letters of 28x28, in 10 classes."""
    asked = Asked(root, split, image_size, channels, num_classes, resize, flip)
    return _idx_images("kmnist", KMNIST, asked)


def cifar10(
    root: str | Path | None,
    split: Split = "train",
    image_size: int | None = 32,
    channels: int | None = 3,
    num_classes: int | None = 10,
    resize: Resize = "lanczos",
    flip: bool = True,
) -> TensorSamples:
    """50,000 (test: 10,000) colour photographs of 32x32, in 10 classes."""
    asked = Asked(root, split, image_size, channels, num_classes, resize, flip)
    return _cifar("cifar10", CIFAR10, asked)


def cifar100(
    root: str | Path | None,
    split: Split = "train",
    image_size: int | None = 32,
    channels: int | None = 3,
    num_classes: int | None = 100,
    resize: Resize = "lanczos",
    flip: bool = True,
) -> TensorSamples:
    """50,000 (test: 10,000) colour photographs of 32x32, in 100 classes."""
    asked = Asked(root, split, image_size, channels, num_classes, resize, flip)
    return _cifar("cifar100", CIFAR100, asked)


def _idx_images(name: str, source: type[MNIST], asked: Asked) -> TensorSamples:
    folder = _check_root(name, asked)
    raw = folder / source.__name__ / "raw"
    prefix = "train" if asked.split == "train" else "t10k"
    paths = [_idx_file(raw / f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    if None in paths:
        _download(name, folder, lambda: source(folder, download=True))
        paths = [_idx_file(raw / f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path) for path in paths if path is not None)
    return _fit(name, images[:, None], labels, source.classes, asked)


def _idx_file(path: Path) -> Path | None:
    """The file, unpacked or gzipped: torchvision would first unpack it, which a read-only folder refuses."""
    return next((each for each in (path, path.with_name(path.name + ".gz")) if each.is_file()), None)


def read_idx(path: Path) -> Tensor:
    """A uint8 tensor from an IDX file, maybe gzipped: bytes 0, 0, 8, rank, big-endian int32 sizes, values."""
    try:
        content = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as an IDX file of bytes")
        rank = content[3]
        shape = struct.unpack_from(f">{rank}i", content, 4)
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8)[4 + 4 * rank :]
        if len(values) != math.prod(shape):
            raise ValueError(f"{len(values)} values instead of {math.prod(shape)}")
    except (OSError, EOFError, ValueError, IndexError, struct.error) as error:
        raise DataError(f"{path} cannot be read ({error}): remove it, and it is downloaded again") from error
    return values.view(shape)


def _cifar(name: str, source: type[CIFAR10], asked: Asked) -> TensorSamples:
    folder = _check_root(name, asked)
    try:
        data = source(folder, train=asked.split == "train")
    except RuntimeError:  # torchvision's word for absent or damaged files
        data = _download(name, folder, lambda: source(folder, train=asked.split == "train", download=True))
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(data.targets)
    return _fit(name, images, labels, data.classes, asked)


def _check_root(name: str, asked: Asked) -> Path:
    if asked.root is None:
        raise DataError(f"data.root=PATH is needed: the folder that holds {name}, or where to download it to")
    if asked.split not in get_args(Split):
        raise DataError(f"data.split={asked.split} is not known: take one of {', '.join(get_args(Split))}")
    return Path(asked.root).expanduser()


def _download(name: str, folder: Path, download: Callable[[], Loaded]) -> Loaded:
    """One process downloads; others wait for it. A dead connection gives up instead of waiting for ever."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            return download()
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} is not in data.root={folder} and cannot be downloaded ({reason}): put it there, or "
            "take data=digits, which needs none"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _fit(name: str, images: Tensor, labels: Tensor, classes: list[str], asked: Asked) -> TensorSamples:
    """uint8 (N, C, H, H) as asked for: `lanczos` scales, `pad` puts zeros around untouched pixels."""
    check_fact("channels", asked.channels, images.shape[1], name)
    labelled = check_num_classes(asked.num_classes, len(classes), name)
    native = images.shape[-1]
    size = native if asked.image_size is None else asked.image_size
    if asked.resize == "pad":
        if size < native:
            raise DataError(
                f"data.image_size={size} is below {name}'s {native}: set data.resize=lanczos to shrink"
            )
        before = (size - native) // 2
        after = size - native - before
        images = pad(images, (before, after, before, after))
    elif asked.resize == "lanczos":
        if size < 1:
            raise DataError(f"data.image_size={size} is no size: it must be at least 1")
        images = lanczos(images, size)
    else:
        raise DataError(f"data.resize={asked.resize} is not known: take one of {', '.join(get_args(Resize))}")
    data = TensorSamples(
        name, images, labels if labelled else None, class_names=classes if labelled else [], flip=asked.flip
    )
    data.split = asked.split
    return data
