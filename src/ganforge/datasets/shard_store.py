"""Shards by number, out of a folder or from a URL, from which each is downloaded once and kept within a bound."""

import contextlib
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from fsspec.core import url_to_fs

from ganforge.cache_folder import default_cache_dir
from ganforge.datasets.samples import DataError
from ganforge.datasets.shards import ARRAYS_FILE, INDEX_FILE, Index, Shard, read_index, write_whole

ATTEMPTS = 4
OPEN_FILES = 32  # of each process


class ShardFolder:
    """The shards of a folder; may be pickled and used in any process and thread."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self.place = str(folder)
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()

    def read(self, number: int, start: int, size: int) -> bytes:
        """`size` bytes of shard `number` from byte `start` on."""
        file = self._open.get(number)
        if file is None:
            file = self._open[number] = self._open_shard(number)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return os.pread(file.number, size, start)

    def expect(self, numbers: Sequence[int]) -> None:
        """Told which shards will be read next, soonest first."""

    def _open_shard(self, number: int) -> "_Descriptor":
        return _Descriptor(self.folder / self.index.shards[number].name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


class _Descriptor:
    """An open file, closed once nobody reads it any more: another thread may, when it is no longer among the last."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class RemoteShards(ShardFolder):
    """The shards behind a URL, each downloaded whole into `folder` when it is needed.

    Of those there are at most `bound_bytes`: the one that was opened longest ago makes room. All processes of a
    machine share the folder, and a shard that made room stays readable where it is open.
    """

    def __init__(self, url: str, folder: Path, index: Index, bound_bytes: float) -> None:
        super().__init__(folder, index)
        self.place = url
        self.bound_bytes = bound_bytes
        self._downloads: dict[int, Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def expect(self, numbers: Sequence[int]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2, thread_name_prefix="shards")
        for number in numbers:
            if number not in self._downloads:
                self._downloads[number] = self._pool.submit(self._attempt, number)
        for number in [n for n, each in self._downloads.items() if n not in numbers and each.done()]:
            del self._downloads[number]

    def _attempt(self, number: int) -> None:
        """A download ahead of time; what is wrong with it is said when the shard is needed."""
        with contextlib.suppress(DataError, OSError):
            self._download(number)

    def _open_shard(self, number: int) -> _Descriptor:
        path = self.folder / self.index.shards[number].name
        while True:
            self._download(number)
            with contextlib.suppress(FileNotFoundError):  # another process made room in between
                os.utime(path)
                return _Descriptor(path)

    def _download(self, number: int) -> None:
        shard = self.index.shards[number]
        path = self.folder / shard.name
        if path.exists():
            return
        with FileLock(self.folder / f".{shard.name}.lock"):
            if path.exists():
                return
            part = self.folder / f".{shard.name}.part"
            for attempt in range(ATTEMPTS):
                try:
                    self._make_room(shard, part)
                    filesystem, root = url_to_fs(self.place)
                    filesystem.get_file(f"{root}/{shard.name}", str(part))
                    with part.open("rb") as file:
                        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                            raise OSError("what came is not what the index says")
                    part.replace(path)
                    return
                except Exception as error:  # each kind of storage raises its own
                    part.unlink(missing_ok=True)
                    if attempt + 1 == ATTEMPTS:
                        raise DataError(
                            f"{self.place}/{shard.name} cannot be downloaded to {self.folder} ({_reason(error)}), "
                            f"tried {ATTEMPTS} times"
                        ) from error
                    time.sleep(2**attempt)

    def _make_room(self, shard: Shard, part: Path) -> None:
        """Room for one shard, which its empty `part` then claims: parts count as whole."""
        sizes = {each.name: each.bytes for each in self.index.shards}
        with FileLock(self.folder / ".room.lock"):
            part.unlink(missing_ok=True)
            # The parts first: one that is finished meanwhile is seen as the shard that it became.
            names = {name for each in self.folder.glob(".*.part") if (name := self._coming(each))}
            there = {path: path.stat().st_mtime_ns for path in self.folder.glob("*.tar")}
            names |= {path.name for path in there}
            total = shard.bytes + sum(sizes.get(name, 0) for name in names)
            for path in sorted(there, key=lambda each: there[each]):
                if total <= self.bound_bytes:
                    break
                path.unlink()
                total -= sizes.get(path.name, 0)
            part.touch()

    def _coming(self, part: Path) -> str | None:
        """The shard that somebody downloads to `part`; what a process that was killed has left is removed."""
        name = part.name.removeprefix(".").removesuffix(".part")
        try:
            with FileLock(self.folder / f".{name}.lock", timeout=0):
                part.unlink(missing_ok=True)
        except Timeout:
            return name
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_downloads": {}, "_pool": None}


def open_folder(folder: Path, what: str) -> ShardFolder:
    """A folder of shards, all of them there; DataError, naming the setting `what`, otherwise."""
    try:
        content = [(folder / name).read_bytes() for name in (INDEX_FILE, ARRAYS_FILE)]
    except OSError as error:
        raise _no_shards(f"{what}={folder}", error) from error
    index = read_index(content[0], content[1], str(folder))
    for shard in index.shards:
        path = folder / shard.name
        found = path.stat().st_size if path.is_file() else None
        if found != shard.bytes:
            state = "is missing" if found is None else f"has {found:,} bytes instead of {shard.bytes:,}"
            raise DataError(f"{path} {state}: copy it again, or prepare the folder again")
    return ShardFolder(folder, index)


def open_url(url: str, what: str, cache: Path | None, bound_bytes: float) -> RemoteShards:
    """The shards behind a URL, kept in a folder of their own below `cache`; DataError when there are none."""
    url = url.rstrip("/")
    facts = _fetch(url, INDEX_FILE, what)
    # Named after its content: the same URL may hold other shards tomorrow.
    key = hashlib.sha256(f"{url}\n".encode() + facts).hexdigest()[:16]
    folder = (default_cache_dir() / "shards" if cache is None else cache.expanduser()) / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ARRAYS_FILE).is_file():
            write_whole(folder / ARRAYS_FILE, _fetch(url, ARRAYS_FILE, what))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}): data.cache=FOLDER chooses another place"
        ) from error
    return RemoteShards(url, folder, read_index(facts, (folder / ARRAYS_FILE).read_bytes(), url), bound_bytes)


def _fetch(url: str, name: str, what: str) -> bytes:
    try:
        filesystem, root = url_to_fs(url)
        content: bytes = filesystem.cat_file(f"{root}/{name}")
    except Exception as error:  # each kind of storage raises its own
        raise _no_shards(f"{what}={url}", error) from error
    return content


def _no_shards(setting: str, error: Exception) -> DataError:
    way_out = "ganforge prepare SOURCE out=FOLDER makes one of images"
    if isinstance(error, ImportError):
        way_out = "pip install the package that it names"
    return DataError(f"{setting} holds no shards that can be read ({_reason(error)}): {way_out}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{Path(error.filename).name}: {error.strerror}" if error.filename else str(error.strerror)
    return " ".join(str(error).split()) or type(error).__name__
