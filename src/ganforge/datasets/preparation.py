"""A folder or ZIP file of images, brought to one size and written as shards or as one ZIP file of PNGs.

The work lies in OUT.part until it is whole. A shard is written under a passing name, and .done/00000.json says what
went into it once it is complete: a preparation that was killed goes on after the last of these, and since a shard's
bytes depend on the images alone, ends with the same bytes as one that nobody killed.
"""

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from ganforge.datasets.folder_labels import LABEL_FILE
from ganforge.datasets.image_folder import OddImageError, StreamedImages, UnfitImageError
from ganforge.datasets.pictures import MODES
from ganforge.datasets.samples import DataError
from ganforge.datasets.shard_store import ShardFolder
from ganforge.datasets.shards import Index, Shard, ShardWriter, write_whole
from ganforge.progress import show_progress

Format = Literal["shards", "zip"]

SHUFFLE_SEED = 0
CHUNK = 16  # images that a thread takes at a time
IMAGES_PER_FOLDER = 1000  # of a ZIP file, as StyleGAN and EDM lay it out

log = logging.getLogger(__name__)


class OutOfSpaceError(OSError):
    """The disk is full, or a quota used up; what is finished is kept."""


@dataclass(frozen=True)
class Prepared:
    """What was written: images, without the `damaged` ones of these names, and files, of `size` bytes together."""

    images: int
    damaged: list[str]
    files: int
    size: int


@dataclass(frozen=True)
class _Part:
    """One finished shard: the places [first, end) of the order of writing, but for the damaged images'.

    Attributes:
        images: a hash of the names and times of change, or CRCs, and labels of all of them.
    """

    shard: Shard
    first: int
    end: int
    damaged: list[int]
    images: str
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @staticmethod
    def read(path: Path) -> "_Part":
        content = json.loads(path.read_text())
        starts, sizes = (np.array(content.pop(key), dtype=np.int64) for key in ("starts", "sizes"))
        return _Part(**{**content, "shard": Shard(**content["shard"])}, starts=starts, sizes=sizes)

    def write(self, path: Path) -> None:
        content = asdict(self) | {"starts": self.starts.tolist(), "sizes": self.sizes.tolist()}
        write_whole(path, json.dumps(content).encode())


def prepare(
    images: StreamedImages,
    out: Path,
    *,
    format: Format,
    workers: int,
    shard_bytes: float,
    skip_broken: bool,
) -> Prepared:
    """Writes all images to `out`, or goes on where a process that was killed left off.

    Args:
        images: as `open_images` gives them.
        out: a folder for `shards`, a file for `zip`; neither may exist, but for an empty folder.
        workers: threads that decode and encode; Pillow lets them run at a time.
        shard_bytes: a shard ends with the image that makes it as large.
        skip_broken: whether a damaged image is left out or stops the work.

    Raises:
        DataError: an image that cannot be decoded or has the wrong size, or an `out` that is taken.
        OutOfSpaceError: the disk is full.
    """
    work = out.with_name(f"{out.name}.part")
    done = work / ".done"
    if out.exists() and not (format == "shards" and out.is_dir() and not any(out.iterdir())):
        if out.is_file() and done.is_dir():
            shutil.rmtree(work, ignore_errors=True)  # whole, but killed before it could clear up
        raise DataError(f"out={out} is there already: remove it, or choose another place")
    if work.exists() and not done.is_dir() and not (work.is_dir() and not any(work.iterdir())):
        raise DataError(
            f"{work} is there, and no unfinished preparation: move it away, or choose another out=..."
        )
    done.mkdir(parents=True, exist_ok=True)
    preparation = _Preparation(images, _order(len(images), format), work, done, shard_bytes, skip_broken)
    try:
        with FileLock(done / "lock", timeout=0):
            finished = preparation.finished_parts()
            preparation.check_same(format, finished)
            parts = preparation.write_parts(finished, workers)
            index, damaged = preparation.write_index(parts)
            return _finish(index, damaged, work, out, format)
    except Timeout:
        raise DataError(f"out={out}: another process is preparing it") from None
    except DataError:
        if not any(len(part.sizes) for part in preparation.finished_parts()):
            shutil.rmtree(work)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            ready = sum(len(part.sizes) for part in preparation.finished_parts())
            raise OutOfSpaceError(
                error.errno,
                f"{error.strerror}; {ready:,} of {len(images):,} images are finished",
                str(work),
            ) from error
        raise


def _order(length: int, format: Format) -> list[int]:
    """In which the images are written. A ZIP file is read anywhere, but of shards a few at a time: were they sorted
    as folders are, by class, a batch would be of few classes."""
    if format == "zip":
        return list(range(length))
    order = torch.randperm(length, generator=torch.Generator().manual_seed(SHUFFLE_SEED))
    return [int(index) for index in order]


@dataclass(frozen=True)
class _Preparation:
    """What is written: `images` in this `order`, into the folder `work`, with notes in `done`."""

    images: StreamedImages
    order: list[int]
    work: Path
    done: Path
    shard_bytes: float
    skip_broken: bool

    def check_same(self, format: Format, parts: list[_Part]) -> None:
        """Notes how images are written, or refuses to go on with other images or in another way."""
        path = self.done / "settings.json"
        settings = {
            "format": format,
            "shape": list(self.images.shape),
            "num_classes": self.images.num_classes,
            "resize": self.images.resize,
            "shard_mb": self.shard_bytes / 1e6,
        }
        if parts:
            before = json.loads(path.read_text())
            differing = [f"{key} was {before[key]}" for key in settings if before[key] != settings[key]]
            if any(part.images != self._stamp(part.first, part.end) for part in parts):
                differing.append("other images")
            if differing:
                raise DataError(
                    f"{self.work} holds what an unfinished preparation has written, with other settings than these "
                    f"({', '.join(differing)}): remove it to begin anew, or give another out=PATH"
                )
            if not self.skip_broken and any(part.damaged for part in parts):
                raise DataError(
                    f"{self.work} was begun with skip_broken=true, and has left images out: set it again"
                )
        write_whole(path, json.dumps(settings).encode())

    def _stamp(self, first: int, end: int) -> str:
        digest = hashlib.sha256()
        for index in self.order[first:end]:
            name, label = self.images.names[index], int(self.images.labels[index])
            try:
                digest.update(f"{name}\n{self.images.files.stamp(name)}\n{label}\n".encode())
            except OSError:  # gone, or a link to nowhere: damaged, if it is left out
                digest.update(f"{name}\n".encode())
        return digest.hexdigest()

    def finished_parts(self) -> list[_Part]:
        return [_Part.read(path) for path in sorted(self.done.glob("0*.json"))]

    def write_parts(self, parts: list[_Part], workers: int) -> list[_Part]:
        """All parts, after these which are there already."""
        first = parts[-1].end if parts else 0
        if 0 < first < len(self.order):
            log.info("going on after %s of %s images", f"{first:,}", f"{len(self.order):,}")
        number = sum(len(part.sizes) for part in parts)
        encoded = show_progress(
            _encode_all(self.images, self.order[first:], workers),
            len(self.order) - first,
            f"preparing {self.images.name}",
        )
        try:
            while first < len(self.order):
                part = self._write_part(encoded, f"{len(parts):05d}", first, number)
                part.write(self.done / f"{len(parts):05d}.json")
                parts.append(part)
                first, number = part.end, number + len(part.sizes)
        finally:
            encoded.close()
        return parts

    def _write_part(
        self, encoded: Iterator[bytes | UnfitImageError], name: str, first: int, number: int
    ) -> _Part:
        """The images from place `first` on, the next of which is the `number`-th that is written."""
        passing = self.work / f"{name}.writing"
        damaged = []
        end = first
        with ShardWriter(passing) as writer:
            while end < len(self.order) and writer.written < self.shard_bytes:
                image = next(encoded)
                if isinstance(image, bytes):
                    label = int(self.images.labels[self.order[end]]) if self.images.num_classes else None
                    writer.add(number + len(writer.sizes), image, label)
                elif isinstance(image, OddImageError):
                    raise DataError(
                        f"{image.fault}: remove it, or take resize=crop, pad or stretch"
                    ) from image
                elif self.skip_broken:
                    damaged.append(end)
                else:
                    raise DataError(
                        f"{image.fault}: replace or remove it, or set skip_broken=true"
                    ) from image
                end += 1
        with passing.open("rb+") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        shard = Shard(f"{name}.tar", len(writer.sizes), passing.stat().st_size, sha256)
        passing.replace(self.work / shard.name)
        starts, sizes = np.array(writer.starts), np.array(writer.sizes)
        return _Part(shard, first, end, damaged, self._stamp(first, end), starts, sizes)

    def write_index(self, parts: list[_Part]) -> tuple[Index, list[str]]:
        """Also the names of the damaged images, which were left out."""
        damaged = sorted(self.images.names[self.order[place]] for part in parts for place in part.damaged)
        if parts and not len(parts[-1].sizes):  # the last images were all damaged
            (self.work / parts[-1].shard.name).unlink(missing_ok=True)
            parts = parts[:-1]
        if not parts:
            raise DataError(
                f"{self.images.files.root}: none of its {len(self.order)} images can be decoded, so nothing is left"
            )
        kept = np.concatenate([np.setdiff1d(np.arange(p.first, p.end), p.damaged) for p in parts])
        index = Index(
            shape=self.images.shape,  # type: ignore[arg-type]
            class_names=self.images.class_names,
            shards=[part.shard for part in parts],
            starts=np.concatenate([part.starts for part in parts]),
            sizes=np.concatenate([part.sizes for part in parts]),
            labels=self.images.labels.numpy()[self.order][kept],
        )
        index.write(self.work)
        return index, damaged


def _encode_all(images: StreamedImages, order: list[int], workers: int) -> Iterator[bytes | UnfitImageError]:
    """The images as PNGs, in this order; a few chunks are made ahead of time, and no more."""

    def encode_chunk(start: int) -> list[bytes | UnfitImageError]:
        return [_encode(images, index) for index in order[start : start + CHUNK]]

    waiting: deque[Future[list[bytes | UnfitImageError]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(order), CHUNK):
            waiting.append(pool.submit(encode_chunk, start))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(images: StreamedImages, index: int) -> bytes | UnfitImageError:
    try:
        pixels = images[index].permute(1, 2, 0).numpy()
    except UnfitImageError as error:
        return error
    png = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    assert image.mode == MODES[pixels.shape[2]]
    image.save(png, "PNG")
    return png.getvalue()


def _finish(index: Index, damaged: list[str], work: Path, out: Path, format: Format) -> Prepared:
    """Puts what is whole in its place, in one step."""
    if format == "zip":
        whole = work / "whole.writing"
        _write_zip(ShardFolder(work, index), whole)
        size, files = whole.stat().st_size, 1
        whole.replace(out)
        shutil.rmtree(work)
    else:
        size, files = sum(shard.bytes for shard in index.shards), len(index.shards)
        work.replace(out)
        shutil.rmtree(out / ".done")
    return Prepared(len(index.labels), damaged, files, size)


def _write_zip(store: ShardFolder, path: Path) -> None:
    """In the form of StyleGAN and EDM: PNGs that are not compressed again, and their labels in dataset.json."""
    index = store.index
    names = [f"{i // IMAGES_PER_FOLDER:05d}/img{i:08d}.png" for i in range(len(index.labels))]
    labels: dict[str, Any] = {"labels": None}
    if index.class_names:
        labels = {
            "labels": [[name, label] for name, label in zip(names, index.labels.tolist(), strict=True)],
            "class_names": list(index.class_names),
        }
    shard_of = np.repeat(np.arange(len(index.shards)), [shard.images for shard in index.shards]).tolist()
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for i in show_progress(range(len(names)), len(names), "writing the ZIP file"):
                png = store.read(shard_of[i], int(index.starts[i]), int(index.sizes[i]))
                archive.writestr(zipfile.ZipInfo(names[i]), png)
            archive.writestr(zipfile.ZipInfo(LABEL_FILE), json.dumps(labels))
        file.flush()
        os.fsync(file.fileno())
