"""More images than memory or disk hold: shards that `ganforge prepare` wrote, in a folder or behind a URL."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganforge.datasets.pictures import decode
from ganforge.datasets.samples import DataError, Samples, check_fact, check_num_classes
from ganforge.datasets.shard_store import RemoteShards, ShardFolder, open_folder, open_url
from ganforge.datasets.shards import Shard


class ShardedImages(Samples):
    """Images that are read and decoded one by one; may be pickled and used in any process.

    In memory are the labels and where each image lies, 24 bytes an image.
    """

    def __init__(self, name: str, store: ShardFolder, labelled: bool, flip: bool, window: int) -> None:
        index = store.index
        labels = torch.from_numpy(index.labels)
        super().__init__(
            name=name,
            shape=index.shape,
            labels=labels if labelled else torch.zeros_like(labels),
            class_names=index.class_names if labelled else [],
            num_classes=len(index.class_names) if labelled else 0,
            in_memory=False,
            flip=flip,
        )
        self.store = store
        self.window = window
        self._ends = np.cumsum([shard.images for shard in index.shards])
        self._groups: list[list[int]] = []  # of the last permutation, in turn
        self._group_of: dict[int, int] = {}

    def __getitem__(self, index: int) -> Tensor:
        channels, height, width = self.shape
        shard = self._shard_of(index)
        start, size = int(self.store.index.starts[index]), int(self.store.index.sizes[index])
        content = self.store.read(shard, start, size)
        try:
            return decode(content, height, width, channels, "refuse")
        except Exception as error:  # Pillow raises a dozen kinds for damaged bytes
            name = f"{self.store.place}/{self.store.index.shards[shard].name}"
            raise DataError(
                f"{name} is damaged (image {index}: {error}): copy it again, or prepare the folder again"
            ) from error

    def batch(self, indices: Tensor) -> Tensor:
        return torch.stack([self[index] for index in indices.tolist()])

    def permutation(self, generator: torch.Generator) -> Tensor:
        """Shards in random order, and the images of each `window` of them shuffled together.

        So a process reads a few shards at a time, each once an epoch, however many there are.
        """
        order = torch.randperm(len(self._ends), generator=generator)
        groups = [sorted(group.tolist()) for group in torch.split(order, self.window)]
        starts = [0, *self._ends.tolist()]
        shuffled = []
        for group in groups:
            members = torch.cat([torch.arange(starts[shard], starts[shard + 1]) for shard in group])
            shuffled.append(members[torch.randperm(len(members), generator=generator)])
        self._groups = groups
        self._group_of = {shard: at for at, group in enumerate(groups) for shard in group}
        return torch.cat(shuffled)

    def expect(self, indices: Tensor) -> None:
        here = self._group_of.get(self._shard_of(int(indices[-1])), 0)
        self.store.expect([shard for group in self._groups[here : here + 2] for shard in group])

    def fingerprint(self) -> str:
        """Of the shards' hashes and the labels: no image is read."""
        index = self.store.index
        digest = hashlib.sha256(repr((self.shape, self.num_classes)).encode())
        for shard in index.shards:
            digest.update(f"{shard.images} {shard.sha256}\n".encode())
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))


def streaming(
    path: str | Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    flip: bool = False,
    window: int = 4,
    cache: str | Path | None = None,
    cache_gb: float = 100.0,
    what: str = "data.path",
) -> ShardedImages:
    """The images of a folder of shards, in the order in which they were prepared.

    Args:
        path: the folder, or its URL of any kind that fsspec knows: s3://, gs://, https://.
        image_size: None takes what was prepared, another number checks it.
        channels: likewise.
        num_classes: likewise; 0 drops the labels.
        flip: whether the trainer may mirror images.
        window: shards whose images are shuffled together. More is a better shuffle, and more shards read at a time.
        cache: the folder that a URL's shards are kept in; None takes the user's cache folder.
        cache_gb: gigabytes (10^9 bytes) of them that are kept.
        what: the setting that chose `path`, as messages name it.

    Raises:
        DataError: anything that is wrong with the shards or these arguments.
    """
    if path is None:
        raise DataError(
            f"{what}=PATH is needed: the folder, or its URL, that ganforge prepare SOURCE out=FOLDER wrote"
        )
    if window < 1:
        raise DataError(f"data.window={window} shards cannot be shuffled: it must be at least 1")
    store = _open(str(path), what, cache, cache_gb * 1e9)
    index = store.index
    if isinstance(store, RemoteShards):
        _check_room(index.shards, window, cache_gb)
    for key, asked, found in (("channels", channels, 0), ("image_size", image_size, 1)):
        check_fact(key, asked, index.shape[found], str(path))
    if image_size is not None and image_size != index.shape[2]:
        raise DataError(
            f"data.image_size={image_size} does not fit {path}, whose images are {index.shape[2]}x{index.shape[1]}: "
            "leave it null"
        )
    labelled = check_num_classes(num_classes, len(index.class_names), str(path))
    return ShardedImages(str(path).rstrip("/").rsplit("/", 1)[-1], store, labelled, flip, window)


def _open(path: str, what: str, cache: str | Path | None, bound_bytes: float) -> ShardFolder:
    if "://" in path:
        return open_url(path, what, None if cache is None else Path(cache), bound_bytes)
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(
            f"{what}={path} does not exist (seen from {Path.cwd()}): give a folder of shards or its URL"
        )
    return open_folder(folder, what)


def _check_room(shards: Sequence[Shard], window: int, cache_gb: float) -> None:
    """Two windows are in use at a time: one is read while the next is downloaded."""
    needed = sum(sorted((shard.bytes for shard in shards), reverse=True)[: 2 * window]) / 1e9
    if needed > cache_gb:
        raise DataError(
            f"data.cache_gb={cache_gb:g} is too little for data.window={window}: two windows of shards need "
            f"{needed:.3g}; give as much, or a smaller window"
        )
