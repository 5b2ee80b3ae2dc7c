"""What every dataset is: a fixed, ordered set of uint8 images (or float32 vectors) with integer labels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

_BLOCK = 1024


class DataError(ValueError):
    """The data, or what was asked of it, is not right: one sentence that names the value and the way out."""


class Samples(Dataset[Tensor], ABC):
    """A fixed, ordered set of samples.

    Attributes:
        name: the dataset's name, for logs and reports.
        shape: of one sample: (C, H, W) for uint8 images, (D,) for float32 vectors.
        labels: int64 (N,), each in [0, num_classes); zeros when the data has no classes.
        num_classes: 0 when the data has no classes.
        class_names: one for each class.
        in_memory: whether `batch` is a look-up in a tensor, rather than reading and decoding files.
        flip: whether the trainer may mirror images left to right, at random.
        split: which part of a data set that comes in parts; None for one that does not.
    """

    split: str | None = None

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        labels: Tensor,
        class_names: Sequence[str],
        num_classes: int,
        in_memory: bool,
        flip: bool,
    ) -> None:
        self.name = name
        self.shape = shape
        self.labels = labels
        self.num_classes = num_classes
        self.class_names = list(class_names)
        self.in_memory = in_memory
        self.flip = flip

    @property
    def image_size(self) -> int | None:
        """The side of the square images, or None for vectors.

        Raises:
            DataError: the images are not square. They can be evaluated, but no network makes such.
        """
        if len(self.shape) != 3:
            return None
        _, height, width = self.shape
        if height != width:
            raise DataError(
                f"{self.name} has images of {width}x{height} pixels, and networks are trained on squares: crop or "
                "resize them first (data=image_folder does, with data.resize=crop)"
            )
        return height

    @property
    def channels(self) -> int:
        """Channels of an image, or numbers in a vector."""
        return self.shape[0]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> Tensor:
        """Sample number `index`: uint8 (C, H, W), or float32 (D,)."""

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """The samples that `indices`, int64 (B,), name: uint8 (B, C, H, W), or float32 (B, D)."""

    def permutation(self, generator: torch.Generator) -> Tensor:
        """The order of one epoch, int64 (N,): each sample once, drawn from `generator` alone."""
        return torch.randperm(len(self), generator=generator)

    def expect(self, indices: Tensor) -> None:
        """Told in training's main process that these will soon be asked for."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash, in hex, of the samples and their labels: equal for equal data, another for any change."""


class TensorSamples(Samples):
    """Samples that live in memory as one tensor: `data` uint8 (N, C, H, W), or float32 (N, D).

    Its memory may be a mapped file, and in another order of axes; `batch` gives contiguous tensors of its own.
    """

    def __init__(
        self,
        name: str,
        data: Tensor,
        labels: Tensor | None = None,
        class_names: Sequence[str] = (),
        num_classes: int | None = None,
        flip: bool = False,
    ) -> None:
        super().__init__(
            name=name,
            shape=tuple(data.shape[1:]),
            labels=torch.zeros(len(data), dtype=torch.int64) if labels is None else labels.to(torch.int64),
            class_names=class_names,
            num_classes=len(class_names) if num_classes is None else num_classes,
            in_memory=True,
            flip=flip,
        )
        self.data = data

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]

    def batch(self, indices: Tensor) -> Tensor:
        return self.data[indices].contiguous()

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.data.dtype, tuple(self.data.shape), self.num_classes)).encode())
        # In blocks: the data may be a file larger than memory, or lie in another order of axes.
        for block in torch.split(self.data, _BLOCK):
            digest.update(block.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


def check_fact(key: str, asked: int | None, found: int, data: str) -> None:
    """Raises DataError when the fact `key` of `data` is `found` and not `asked`; None asks for nothing."""
    if asked is not None and asked != found:
        raise DataError(f"data.{key}={asked} does not fit {data}, which has {found}: set data.{key}={found}")


def check_num_classes(asked: int | None, found: int, data: str) -> bool:
    """Whether to keep the labels: not when `asked` is 0. Raises DataError unless it is None, 0 or `found`."""
    if asked == 0:
        return False
    check_fact("num_classes", asked, found, data)
    return found > 0
