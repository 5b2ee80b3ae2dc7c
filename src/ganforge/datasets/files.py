"""Files by name, out of a folder or a ZIP file, in a fixed order; readable from any process and thread."""

import os
import threading
import zipfile
from pathlib import Path
from typing import Any, Protocol

from ganforge.datasets.samples import DataError


class Files(Protocol):
    """A read-only tree of files. `names` are sorted and relative to `root`, with forward slashes.

    `what` is the setting that chose it, as the user writes it.
    """

    root: Path
    what: str
    names: list[str]

    def read(self, name: str) -> bytes: ...

    def stamp(self, name: str) -> str:
        """Changes when the file's content does."""


def open_files(root: str | Path | None, what: str = "data.root") -> Files:
    """The files of a folder or a ZIP file; DataError when `root` is missing, unreadable or neither."""
    if root is None:
        raise DataError(f"{what}=PATH is needed: the folder or ZIP file that holds the images")
    path = Path(root).expanduser()
    if path.is_dir():
        return Folder(path, what)
    if path.is_file():
        return Archive(path, what)
    raise DataError(
        f"{what}={root} does not exist (seen from {Path.cwd()}): give a folder or a ZIP file of images"
    )


def beside(what: str, setting: str) -> str:
    """`setting` as the user writes it: beside data.root it is data.SETTING, beside a word of its own SETTING."""
    return f"{what.removesuffix('root')}{setting}" if what.endswith(".root") else setting


def _hidden(name: str) -> bool:
    """Litter of operating systems: .DS_Store, ._x.png, __MACOSX/."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class Folder:
    """All files below a folder; links are followed."""

    def __init__(self, root: Path, what: str) -> None:
        self.root = root
        self.what = what
        names = []
        seen = set()
        for folder, subfolders, files in os.walk(root, followlinks=True, onerror=self._refuse):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            names += [(Path(folder) / file).relative_to(root).as_posix() for file in files]
        self.names = sorted(name for name in names if not _hidden(name))

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def stamp(self, name: str) -> str:
        state = (self.root / name).stat()
        return f"{state.st_size} {state.st_mtime_ns}"

    def _refuse(self, error: OSError) -> None:
        raise DataError(
            f"{self.what}: the folder {error.filename} cannot be read ({error.strerror}): mend its permissions"
        )


class Archive:
    """All files in a ZIP file, which each process opens for itself: a shared handle shares its position."""

    def __init__(self, root: Path, what: str) -> None:
        self.root = root
        self.what = what
        self._lock = threading.Lock()
        self._process = os.getpid()
        try:
            self._archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"{what}={root} is not a ZIP file that can be read ({error}): copy it again, or unpack "
                "it and give the folder"
            ) from None
        self._stamps = {
            entry.filename: f"{entry.file_size} {entry.CRC:08x}"
            for entry in self._archive.infolist()
            if not entry.is_dir() and not _hidden(entry.filename)
        }
        self.names = sorted(self._stamps)

    def read(self, name: str) -> bytes:
        with self._lock:
            if self._process != os.getpid():
                self._archive = zipfile.ZipFile(self.root)
                self._process = os.getpid()
            return self._archive.read(name)

    def stamp(self, name: str) -> str:
        return self._stamps[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "what": self.what, "names": self.names, "_stamps": self._stamps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._process = -1  # no process: the first read opens the file
