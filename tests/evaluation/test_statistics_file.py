"""Files of statistics: read back to the last bit, foreign ones too; anything else is refused with the reason."""

from __future__ import annotations

import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganforge.evaluation.sample import Statistics, feature_statistics
from ganforge.evaluation.statistics_file import is_statistics_file, read_statistics, write_statistics

STAMP = {
    "extractor": {"name": "inception", "resize": "299x299"},
    "real": {"source": "räsümé", "count": 5, "share": 0.1},
}


@pytest.fixture
def seed() -> int:
    """A fresh one each time; pytest shows what is printed when a test fails."""
    value = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed: {value}")
    return value


def some(seed: int, dimensions: int = 6) -> Statistics:
    features = torch.randn(20, dimensions, generator=torch.Generator().manual_seed(seed))
    return feature_statistics(features)


def bits(values: np.ndarray[Any, Any]) -> bytes:
    return values.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path: Path, seed: int, dtype: Any) -> None:
    statistics = some(seed)._replace(mu=some(seed).mu.astype(dtype))
    path = tmp_path / "new" / "folder" / "cifar10.npz"
    write_statistics(path, statistics, STAMP)
    read = read_statistics(path)
    assert read.mu.dtype == dtype
    assert read.sigma.dtype == np.float64
    assert bits(read.mu) == bits(statistics.mu)
    assert bits(read.sigma) == bits(statistics.sigma)
    assert read.stamp == STAMP
    assert is_statistics_file(path)
    assert [each.name for each in path.parent.iterdir()] == ["cifar10.npz"], "no half-written file stays"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask(), "others may read it as any other file"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("extra", "mu_type", "sigma_type"),
    [
        ({}, "<f8", "<f8"),  # pytorch-fid, clean-fid, EDM
        ({}, "<f4", "<f4"),
        ({}, ">f8", ">f4"),
        ({"mu_s": np.zeros(3), "sigma_s": np.eye(3)}, "<f8", "<f8"),  # ADM, without its images
    ],
)
def test_files_of_others(
    tmp_path: Path, save: Any, extra: Any, mu_type: str, sigma_type: str, seed: int
) -> None:
    mu, sigma = some(seed).mu.astype(mu_type), some(seed).sigma.astype(sigma_type)
    save(tmp_path / "a.npz", mu=mu, sigma=sigma, **extra)
    read = read_statistics(tmp_path / "a.npz")
    assert (read.mu == mu).all()
    assert read.mu.dtype == mu.dtype.newbyteorder("=")
    assert (read.sigma == sigma).all()
    assert read.sigma.dtype == np.float64
    assert read.stamp == {}
    assert is_statistics_file(tmp_path / "a.npz")


def test_a_batch_of_images_with_statistics_is_images_first(tmp_path: Path, seed: int) -> None:
    statistics = some(seed)
    for name in ("arr_0", "anything"):
        images = {name: np.zeros((2, 4, 4, 3), np.uint8)}
        np.savez(tmp_path / "a.npz", mu=statistics.mu, sigma=statistics.sigma, **images)
        assert not is_statistics_file(tmp_path / "a.npz")
        assert bits(read_statistics(tmp_path / "a.npz").sigma) == bits(statistics.sigma)


def test_pytorch_fid_reads_what_was_written(tmp_path: Path, seed: int) -> None:
    """The loader of pytorch-fid and clean-fid: np.load, then f["mu"][:] and f["sigma"][:]."""
    statistics = some(seed)
    write_statistics(tmp_path / "a.npz", statistics, STAMP)
    with np.load(tmp_path / "a.npz") as file:
        mu, sigma = file["mu"][:], file["sigma"][:]
    assert bits(mu) == bits(statistics.mu)
    assert bits(sigma) == bits(statistics.sigma)


def test_rounding_is_no_asymmetry(tmp_path: Path, seed: int) -> None:
    sigma = some(seed).sigma.astype(np.float32)
    sigma[0, 1] *= np.float32(1 + 1e-6)
    np.savez(tmp_path / "a.npz", mu=np.zeros(6), sigma=sigma)
    assert (read_statistics(tmp_path / "a.npz").sigma == sigma).all()


EYE = np.eye(4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4)}, "it has no sigma, but mu"),
        ({"arr_0": EYE}, "it has no mu and no sigma, but arr_0"),
        ({}, "it has no mu and no sigma, but nothing"),
        ({"mu": np.zeros((1, 4)), "sigma": EYE}, r"mu has the shape \(1, 4\), not \(D,\)"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"mu has the shape \(0,\)"),
        ({"mu": np.zeros(5), "sigma": EYE}, r"sigma has the shape \(4, 4\), not \(5, 5\)"),
        ({"mu": np.zeros(4), "sigma": np.ones(4)}, r"sigma has the shape \(4,\), not \(4, 4\)"),
        ({"mu": np.zeros(4, int), "sigma": EYE}, "mu is int64, not float32 or float64"),
        ({"mu": np.zeros(4), "sigma": EYE.astype(np.float16)}, "sigma is float16, not float32"),
        ({"mu": np.array([0, 0, 0, np.nan]), "sigma": EYE}, "mu holds NaN or infinity"),
        ({"mu": np.zeros(4), "sigma": np.full((4, 4), np.inf)}, "sigma holds NaN or infinity"),
        ({"mu": np.zeros(4), "sigma": -EYE}, "sigma holds a negative variance, -1"),
        ({"mu": np.zeros(4), "sigma": EYE + np.triu(EYE + 0.01)}, "not symmetric: entries differ by 0.01"),
        ({"mu": np.zeros(4), "sigma": EYE, "ganforge": np.array("{")}, "its stamp, ganforge, is not JSON"),
        ({"mu": np.zeros(4), "sigma": EYE, "ganforge": np.array("[1]")}, "ganforge, is no JSON object"),
        ({"mu": np.zeros(4), "sigma": EYE, "ganforge": np.zeros(3)}, "its stamp, ganforge"),
        ({"mu": np.array([None] * 4), "sigma": EYE}, "pickles may carry code and are not read"),
    ],
)
def test_what_are_no_statistics(tmp_path: Path, arrays: Any, message: str) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(
        ValueError, match=rf"wrong\.npz cannot be used as statistics \(.*{message}.*numpy\.savez"
    ):
        read_statistics(tmp_path / "wrong.npz")


def test_other_files(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "edm.pkl").write_bytes(pickle.dumps({"mu": Trap()}))
    with pytest.raises(
        ValueError, match=r"edm\.pkl .*a pickle, and pickles .*numpy\.savez\(FILE, mu=MEAN, sigma="
    ):
        read_statistics(tmp_path / "edm.pkl")
    assert not (tmp_path / "sprung").exists()
    np.save(tmp_path / "a.npy", EYE)
    with pytest.raises(ValueError, match=r"a\.npy .*it is a single array"):
        read_statistics(tmp_path / "a.npy")
    for name, content in {"empty": b"", "text": b"hello", "zip": b"PK\x03\x04"}.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.npz cannot be used"):
            read_statistics(tmp_path / f"{name}.npz")
    with zipfile.ZipFile(tmp_path / "fake.npz", "w") as archive:
        archive.writestr("mu.npy", b"")
        archive.writestr("sigma.npy", b"not an array")
    with pytest.raises(ValueError, match=r"fake\.npz cannot be used"):
        read_statistics(tmp_path / "fake.npz")
    assert not any(is_statistics_file(path) for path in tmp_path.iterdir())
    assert not is_statistics_file(tmp_path / "absent.npz")
    assert not is_statistics_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_statistics(tmp_path / "absent.npz")


def test_cut_and_bitten_files(tmp_path: Path, seed: int) -> None:
    """One ValueError, or exactly what was written: the file has checksums."""
    randomness = np.random.default_rng(seed)
    statistics, path = some(seed), tmp_path / "a.npz"
    write_statistics(path, statistics, STAMP)
    whole = path.read_bytes()
    for cut in randomness.integers(len(whole), size=30):
        path.write_bytes(whole[:cut])
        assert not is_statistics_file(path)
        with pytest.raises(ValueError, match=r"a\.npz cannot be used as statistics"):
            read_statistics(path)
    for place in randomness.integers(len(whole), size=100):
        bitten = bytearray(whole)
        bitten[place] ^= int(randomness.integers(1, 256))
        path.write_bytes(bytes(bitten))
        is_statistics_file(path)
        try:
            read = read_statistics(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert bits(read.mu) == bits(statistics.mu)
            assert bits(read.sigma) == bits(statistics.sigma)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, seed: int) -> None:
    """A stamp that refuses to become text stands for a full disk: it fails in the middle of the write."""

    class Stubborn:
        def __str__(self) -> str:
            raise OSError(28, "No space left on device")

    path = tmp_path / "a.npz"
    write_statistics(path, some(seed), STAMP)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        write_statistics(path, some(seed), {"extractor": Stubborn()})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_statistics(tmp_path / "file" / "a.npz", some(seed), STAMP)


def test_stamps_of_tuples_and_numbers_read_back_as_json_has_them(tmp_path: Path) -> None:
    write_statistics(tmp_path / "a.npz", some(0), {"a": (1, 2), "b": None, "c": {"d": True}})
    assert read_statistics(tmp_path / "a.npz").stamp == {"a": [1, 2], "b": None, "c": {"d": True}}
