"""Mean and covariance of features in a .npz file, as pytorch-fid, clean-fid, ADM and EDM write them.

Keys: `mu` (D,) and `sigma` (D, D), each float32 or float64; what else is there is passed over. Files of this package
say under `ganforge`, in JSON, how they were made.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ganforge.evaluation.sample import Statistics
from ganforge.evaluation.stamp import Stamp

STAMP_KEY = "ganforge"
_ASYMMETRY = 1e-4  # of the largest entry: sums of float32 in two orders differ by less
_WAY_OUT = "a file of statistics is written by numpy.savez(FILE, mu=MEAN, sigma=COVARIANCE)"


class StatisticsFile(NamedTuple):
    """What a file holds: mu float32 or float64 (D,), sigma float64 (D, D); the stamp is {} in files of others."""

    mu: NDArray[Any]
    sigma: NDArray[np.float64]
    stamp: Stamp


def read_statistics(path: str | Path) -> StatisticsFile:
    """The statistics in a .npz file; nothing is ever unpickled.

    Raises:
        ValueError: the file is something else or damaged, or its arrays are no mean and covariance.
        OSError: it cannot be opened.
    """
    with Path(path).open("rb") as file:
        try:
            mu, sigma, stamp = _read(file)
            _check(mu, sigma)
        except Exception as error:  # numpy, zipfile, zlib and tokenize raise a dozen kinds for a damaged file
            raise ValueError(
                f"{path} cannot be used as statistics ({_reason(path, error)}): {_WAY_OUT}"
            ) from error
    return StatisticsFile(mu.astype(mu.dtype.newbyteorder("="), copy=False), sigma.astype(np.float64), stamp)


def write_statistics(path: str | Path, statistics: Statistics, stamp: Stamp) -> None:
    """Writes a .npz file that `read_statistics`, and the tools named above, read back to the last bit.

    The file appears complete or not at all, and missing folders are made.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            text = json.dumps(stamp, default=str)
            np.savez(file, mu=statistics.mu, sigma=statistics.sigma, **{STAMP_KEY: np.array(text)})  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_statistics_file(path: str | Path) -> bool:
    """Whether it is a .npz file with `mu` and `sigma` and without images: no other array has four dimensions.

    A sample batch of ADM may carry the statistics of its images, and counts as images. False for what cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            ranks = {name.removesuffix(".npy"): _rank(archive, name) for name in archive.namelist()}
    except Exception:  # as above
        return False
    return {"mu", "sigma"} <= ranks.keys() and 4 not in ranks.values()


def _rank(archive: zipfile.ZipFile, name: str) -> int:
    """Dimensions of an array, from its header alone."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        return len(read(file)[0])


def _read(file: BinaryIO) -> tuple[NDArray[Any], NDArray[Any], Stamp]:
    content = np.load(file, allow_pickle=False)
    if not isinstance(content, NpzFile):
        raise ValueError("it is a single array")
    if missing := [key for key in ("mu", "sigma") if key not in content.files]:
        raise ValueError(f"it has no {' and no '.join(missing)}, but {', '.join(content.files) or 'nothing'}")
    stamp = _stamp(content[STAMP_KEY]) if STAMP_KEY in content.files else {}
    return content["mu"], content["sigma"], stamp


def _stamp(value: NDArray[Any]) -> Stamp:
    try:
        stamp = json.loads(str(value))
    except ValueError as error:
        raise ValueError(f"its stamp, {STAMP_KEY}, is not JSON: {error}") from None
    if not isinstance(stamp, dict):
        raise ValueError(f"its stamp, {STAMP_KEY}, is no JSON object")
    return stamp


def _check(mu: NDArray[Any], sigma: NDArray[Any]) -> None:
    for name, values in (("mu", mu), ("sigma", sigma)):
        if (
            not isinstance(values, np.ndarray)
            or values.dtype.kind != "f"
            or values.dtype.itemsize not in (4, 8)
        ):
            raise ValueError(f"{name} is {getattr(values, 'dtype', 'no array')}, not float32 or float64")
    if mu.ndim != 1 or len(mu) == 0:
        raise ValueError(f"mu has the shape {mu.shape}, not (D,)")
    if sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"sigma has the shape {sigma.shape}, not {(len(mu), len(mu))} as mu asks for")
    for name, values in (("mu", mu), ("sigma", sigma)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")
    if (sigma.diagonal() < 0).any():
        raise ValueError(f"sigma holds a negative variance, {sigma.diagonal().min():.4g}")
    largest, asymmetry = np.abs(sigma).max(), np.abs(sigma - sigma.T).max()
    if asymmetry > _ASYMMETRY * largest:
        raise ValueError(
            f"sigma is not symmetric: entries differ by {asymmetry:.4g}, the largest being {largest:.4g}"
        )


def _reason(path: str | Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "pickle" in text:  # numpy's word for whatever does not begin as its own files do
        kind = (
            "a pickle"
            if Path(path).suffix in (".pkl", ".pickle")
            else "no .npz file, or one of Python objects"
        )
        return f"it is {kind}, and pickles may carry code and are not read"
    return text or type(error).__name__
