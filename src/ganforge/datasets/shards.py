"""Images in shards: plain tar files as WebDataset reads them, and an index that finds each image by its number.

FOLDER/00000.tar, ...: for each image 00000000.png and, where there are classes, 00000000.cls with its label.
FOLDER/index.json: shape, names of the classes, and of each shard its name, images, bytes and SHA-256.
FOLDER/index.npz: of each image where in its shard it starts, how many bytes it has, and its label.

A tar file alone can only be read from its beginning; with the index an epoch may begin anywhere, and in any order.
"""

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganforge.datasets.samples import DataError

INDEX_FILE = "index.json"
ARRAYS_FILE = "index.npz"
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One tar file. `images` and `bytes` are how many it has, `sha256` is of the file."""

    name: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What is known of all images without reading a shard.

    Attributes:
        shape: (C, H, W) of every image.
        class_names: one for each class; empty without classes.
        shards: in the order of the images.
        starts: int64 (N,), the first byte of each image in its shard.
        sizes: int64 (N,), bytes of each image.
        labels: int64 (N,), each in [0, number of classes); zeros without classes.
    """

    shape: tuple[int, int, int]
    class_names: Sequence[str]
    shards: Sequence[Shard]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]

    def write(self, folder: Path) -> None:
        """Writes both files, index.json last: where it is, all is."""
        arrays = io.BytesIO()
        np.savez(arrays, starts=self.starts, sizes=self.sizes, labels=self.labels)
        (folder / ARRAYS_FILE).write_bytes(arrays.getvalue())
        facts = {
            "version": VERSION,
            "images": len(self.labels),
            "shape": list(self.shape),
            "class_names": list(self.class_names),
            "arrays_sha256": hashlib.sha256(arrays.getvalue()).hexdigest(),
            "shards": [asdict(shard) for shard in self.shards],
        }
        (folder / INDEX_FILE).write_text(json.dumps(facts, indent=1) + "\n")


def read_index(facts: bytes, arrays: bytes, place: str) -> Index:
    """The index out of the content of its two files, which lie at `place`.

    Raises:
        DataError: they are damaged, do not belong together, or are of a later version.
    """
    try:
        known: dict[str, Any] = json.loads(facts)
        version = known["version"]
        if version == VERSION:
            if hashlib.sha256(arrays).hexdigest() != known["arrays_sha256"]:
                raise ValueError(f"{ARRAYS_FILE} is not the one that {INDEX_FILE} was written with")
            with np.load(io.BytesIO(arrays), allow_pickle=False) as content:
                index = Index(
                    shape=tuple(map(int, known["shape"])),  # type: ignore[arg-type]
                    class_names=list(map(str, known["class_names"])),
                    shards=[Shard(**shard) for shard in known["shards"]],
                    **{name: content[name].astype(np.int64) for name in ("starts", "sizes", "labels")},
                )
            if not len(index.starts) == len(index.sizes) == len(index.labels) == known["images"] or known[
                "images"
            ] != sum(shard.images for shard in index.shards):
                raise ValueError("its counts of images differ")
            return index
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{place}/{INDEX_FILE} cannot be used ({error!s}): copy the folder again, or prepare it again"
        ) from error
    raise DataError(f"{place}/{INDEX_FILE} is of version {version}, which this ganforge does not know")


def write_whole(path: Path, content: bytes) -> None:
    """In one step: nobody sees half of the file, and processes may write the same one."""
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    passing.write_bytes(content)
    passing.replace(path)


class ShardWriter:
    """Writes one shard; the same images give the same bytes.

    Attributes:
        starts: of each image its first byte in the file.
        sizes: of each image its bytes.
    """

    def __init__(self, path: Path) -> None:
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  closed by __exit__

    @property
    def written(self) -> int:
        """Bytes up to now, without the end mark."""
        return self._tar.offset

    def add(self, number: int, png: bytes, label: int | None) -> None:
        """Image `number` of the whole set, with its label where there are classes."""
        self.starts.append(self._tar.offset + tarfile.BLOCKSIZE)
        self.sizes.append(len(png))
        self._add(f"{number:08d}.png", png)
        if label is not None:
            self._add(f"{number:08d}.cls", str(label).encode())

    def _add(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)  # its time is 0: nothing of the file depends on when it was written
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._tar.close()
        else:  # a full disk would refuse the end mark too, and hide the first error
            fileobj = self._tar.fileobj
            if fileobj is not None:
                fileobj.close()
