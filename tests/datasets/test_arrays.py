"""Images and vectors in NumPy files: read to the last bit whatever their layout, or refused with the way out."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganforge.datasets.arrays import array
from ganforge.datasets.samples import DataError, TensorSamples


@pytest.fixture
def seed() -> int:
    """A fresh one each time; pytest shows what is printed when a test fails."""
    value = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed: {value}")
    return value


def pictures(
    seed: int, count: int = 7, height: int = 6, width: int = 6, channels: int = 3
) -> np.ndarray[Any, Any]:
    """Random uint8 (N, H, W, C)."""
    return np.random.default_rng(seed).integers(256, size=(count, height, width, channels), dtype=np.uint8)


def nchw(images: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def everything(data: Any) -> torch.Tensor:
    batch: torch.Tensor = data.batch(torch.arange(len(data)))
    return batch


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["NHWC", "NCHW", "NHWC, Fortran"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_every_layout_gives_the_same_images(
    tmp_path: Path, suffix: str, order: str, channels: int, seed: int
) -> None:
    images = pictures(seed, channels=channels)
    stored = {
        "NHWC": images,
        "NCHW": images.transpose(0, 3, 1, 2).copy(),
        "NHWC, Fortran": np.asfortranarray(images),
    }[order]
    path = tmp_path / f"some.{suffix}"
    if suffix == "npy":
        np.save(path, stored)
    else:
        np.savez_compressed(path, stored)
    data = array(path)
    expected = TensorSamples("some", nchw(images))
    assert (data.name, data.shape, data.num_classes, len(data)) == ("some", (channels, 6, 6), 0, 7)
    rows = torch.from_numpy(np.random.default_rng(seed).integers(7, size=5))
    assert torch.equal(data.batch(rows), expected.batch(rows))
    assert data.batch(rows).is_contiguous()
    assert data.batch(rows).dtype == torch.uint8
    assert torch.equal(data[int(rows[0])], expected[int(rows[0])])
    assert data.fingerprint() == expected.fingerprint()
    assert data.image_size == 6


def test_grey_without_channels(tmp_path: Path, seed: int) -> None:
    images = pictures(seed, channels=1)
    np.save(tmp_path / "grey.npy", images[..., 0])
    assert torch.equal(everything(array(tmp_path / "grey.npy")), nchw(images))


def test_a_mapped_file_is_read_without_a_warning_and_never_written(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, pictures(seed))
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = array(path)
    everything(data).zero_()  # a batch is the caller's own
    assert everything(data).any()
    assert path.read_bytes() == before


def test_a_file_may_be_larger_than_memory(tmp_path: Path, seed: int) -> None:
    """16 GB, nearly all of it a hole, which takes no space on the disk."""
    path = tmp_path / "large.npy"
    count, images = 16_000_000, pictures(seed, count=3, height=16, width=21)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 16, 21, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.seek((count - 3) * 16 * 21 * 3, 1)
        file.write(images.tobytes())
    data = array(path)
    assert torch.equal(data.batch(torch.tensor([count - 3, count - 2, count - 1])), nchw(images))
    assert not data[count // 2].any()


def test_blocks_of_the_fingerprint_do_not_show(tmp_path: Path, seed: int) -> None:
    """More samples than one block: as the hash of all bytes at once, which earlier runs' files are named after."""
    images = np.random.default_rng(seed).integers(256, size=(2500, 3, 2, 2), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    whole = hashlib.sha256(repr((torch.uint8, (2500, 3, 2, 2), 0)).encode())
    whole.update(images.tobytes())
    whole.update(np.zeros(2500, np.int64).tobytes())
    assert array(tmp_path / "a.npy").fingerprint() == whole.hexdigest()


# Which array of a .npz file


@pytest.mark.parametrize(
    "keys", [("arr_0", "arr_1"), ("images", "labels"), ("samples", "labels"), ("images", "arr_1")]
)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, ">i4"])
def test_labels(tmp_path: Path, keys: tuple[str, str], dtype: Any, seed: int) -> None:
    images, labels = pictures(seed), np.array([0, 3, 1, 1, 0, 3, 0])
    np.savez(tmp_path / "a.npz", **{keys[0]: images, keys[1]: labels.astype(dtype)})
    data = array(tmp_path / "a.npz")
    assert data.labels.tolist() == labels.tolist()
    assert data.labels.dtype == torch.int64
    assert (data.num_classes, data.class_names) == (4, ["0", "1", "2", "3"])
    assert torch.equal(everything(data), nchw(images))
    assert array(tmp_path / "a.npz", num_classes=10).num_classes == 10
    without = array(tmp_path / "a.npz", num_classes=0)
    assert (without.num_classes, without.labels.tolist()) == (0, [0] * 7)
    with pytest.raises(
        DataError, match=r"data\.num_classes=3 does not fit .*a\.npz, which has 4: set data\.num_classes=4"
    ):
        array(tmp_path / "a.npz", num_classes=3)


def test_a_reference_batch_with_statistics_gives_its_images(tmp_path: Path, seed: int) -> None:
    images = pictures(seed)
    np.savez(tmp_path / "a.npz", arr_0=images, mu=np.zeros(4), sigma=np.eye(4), mu_s=np.zeros(3))
    assert torch.equal(everything(array(tmp_path / "a.npz")), nchw(images))


def test_several_arrays_and_no_name_for_the_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", real=pictures(0), fake=pictures(1))
    with pytest.raises(DataError, match=r"two\.npz has to say .* call it images.* real \(7, 6, 6, 3\), fake"):
        array(tmp_path / "two.npz")
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(DataError, match=r"call it images.* mu \(4,\), sigma \(4, 4\)"):
        array(tmp_path / "statistics.npz")


# Vectors


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f8"])
def test_vectors(tmp_path: Path, dtype: Any, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(9, 2)).astype(dtype)
    np.savez(tmp_path / "points.npz", points)
    data = array(tmp_path / "points.npz", channels=2)
    assert (data.shape, data.image_size, data.channels) == ((2,), None, 2)
    assert everything(data).dtype == torch.float32
    assert everything(data).tolist() == points.astype(np.float32).tolist()
    with pytest.raises(DataError, match=r"data\.channels=3 does not fit .*, which has 2"):
        array(tmp_path / "points.npz", channels=3)
    with pytest.raises(DataError, match=r"data\.image_size=8 does not fit .* vectors"):
        array(tmp_path / "points.npz", image_size=8)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_vectors_that_are_not_finite(tmp_path: Path, wrong: float) -> None:
    np.save(tmp_path / "a.npy", np.array([[0.0, 1.0], [wrong, 0.0]]))
    with pytest.raises(DataError, match=r"a\.npy holds NaN, infinity or numbers beyond float32"):
        array(tmp_path / "a.npy")


# Squares, sizes, axes


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(0))
    assert array(tmp_path / "a.npy", image_size=6, channels=3).shape == (3, 6, 6)
    with pytest.raises(DataError, match=r"data\.image_size=8 does not fit .*a\.npy, which has 6"):
        array(tmp_path / "a.npy", image_size=8)
    with pytest.raises(DataError, match=r"data\.channels=1 does not fit .*a\.npy, which has 3"):
        array(tmp_path / "a.npy", channels=1)
    with pytest.raises(DataError, match=r"data\.num_classes=2 does not fit .*a\.npy, which has 0"):
        array(tmp_path / "a.npy", num_classes=2)


def test_other_shapes_than_squares_can_be_evaluated_but_not_trained_on(tmp_path: Path, seed: int) -> None:
    images = pictures(seed, height=5, width=9)
    np.save(tmp_path / "wide.npy", images)
    data = array(tmp_path / "wide.npy")
    assert data.shape == (3, 5, 9)
    assert torch.equal(everything(data), nchw(images))
    with pytest.raises(DataError, match=r"wide has images of 9x5 pixels.*squares.*data\.resize=crop"):
        _ = data.image_size
    with pytest.raises(DataError, match=r"data\.image_size=9 does not fit .* 9x5: leave it null"):
        array(tmp_path / "wide.npy", image_size=9)


def test_axes_that_cannot_be_told_apart(tmp_path: Path, seed: int) -> None:
    images = pictures(
        seed, height=4, width=4
    )  # (N, 4, 4, 3): channels first would make 4x3 images of 4 channels
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(DataError, match=r"\(7, 4, 4, 3\) may be \(N, H, W, C\) or .*set data\.channels=C"):
        array(tmp_path / "a.npy")
    assert torch.equal(everything(array(tmp_path / "a.npy", channels=3)), nchw(images))
    assert array(tmp_path / "a.npy", channels=4).shape == (4, 4, 3)
    np.save(tmp_path / "b.npy", pictures(0, height=3, width=3))
    for channels in (None, 3):
        with pytest.raises(DataError, match="save it in another size"):
            array(tmp_path / "b.npy", channels=channels)
    np.save(tmp_path / "c.npy", pictures(0, channels=2))
    with pytest.raises(DataError, match=r"uint8 \(7, 6, 6, 2\): images are .* with 1, 3 or 4 channels"):
        array(tmp_path / "c.npy")


# What is wrong is said, once, with the file's name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.linspace(-1, 1, 108).reshape(1, 6, 6, 3), r"float64 \(1, 6, 6, 3\), from -1 to 1, not uint8"),
        (np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 6, 6), r"float32 \(1, 6, 6\), from 0 to 1, not"),
        (np.arange(108).reshape(1, 6, 6, 3), r"int64 \(1, 6, 6, 3\), from 0 to 107, not uint8"),
        (np.full((1, 6, 6, 3), np.nan), r"from nan to nan, not uint8 in 0\.\.255: save \(127\.5 \* x"),
        (np.eye(6, dtype=bool)[None], r"bool \(1, 6, 6\), from 0 to 1, not uint8"),
        (np.zeros((1, 6, 6), complex), r"complex128 \(1, 6, 6\), not uint8"),
        (np.array(["a", "b"]), r"<U1 \(2,\), not uint8"),
        (np.zeros((5, 9), np.uint8), r"uint8 \(5, 9\): vectors are float \(N, D\)"),
        (np.zeros((5, 9), np.int64), r"int64 \(5, 9\): vectors are float"),
        (np.zeros(5, np.uint8), r"uint8 \(5,\): images are \(N, H, W, C\)"),
        (np.zeros((1, 2, 3, 6, 6), np.uint8), r"uint8 \(1, 2, 3, 6, 6\): images are"),
        (np.uint8(3), r"uint8 \(\): images are"),
        (np.zeros((0, 6, 6, 3), np.uint8), r"holds no samples.*\(0, 6, 6, 3\)"),
        (np.zeros((3, 0, 0, 3), np.uint8), r"holds no samples"),
        (np.zeros((0, 2)), r"holds no samples"),
        (np.array([None, {}]), r"cannot be read \(it holds Python objects"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_what_are_no_images(tmp_path: Path, suffix: str, values: Any, message: str) -> None:
    path = tmp_path / f"wrong.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    else:
        np.savez(path, values)
    with pytest.raises(DataError, match=rf"wrong\.{suffix} .*{message}"):
        array(path)


def test_the_way_out_for_floats_is_exact(tmp_path: Path, seed: int) -> None:
    """What the message tells to do gives back the images that `to_float` made floats of."""
    from ganforge.images import to_float

    images = pictures(seed)
    x = to_float(torch.from_numpy(images)).numpy()
    np.save(tmp_path / "a.npy", (127.5 * x + 127.5).round().clip(0, 255).astype(np.uint8))
    assert torch.equal(everything(array(tmp_path / "a.npy")), nchw(images))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(6), r"int64 \(6,\) and cannot be the labels of 7 samples.*data\.num_classes=0"),
        (np.eye(7, dtype=np.int64), r"int64 \(7, 7\) and cannot be"),
        (np.zeros(7), r"float64 \(7,\) and cannot be"),
        (np.full(7, -1), r"has the label -1: labels count from 0"),
        (np.full(7, 2**62), r"has the label 4611686018427387904"),
        (np.full(7, 2**64 - 1, np.uint64), r"has the label 18446744073709551615"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", pictures(0), labels)
    with pytest.raises(DataError, match=message):
        array(tmp_path / "a.npz")
    assert array(tmp_path / "a.npz", num_classes=0).num_classes == 0


def test_missing_files_and_files_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=PATH is needed: a \.npy or \.npz file"):
        array(None)
    with pytest.raises(DataError, match=r"data\.root=.*absent\.npy is no file"):
        array(tmp_path / "absent.npy")
    with pytest.raises(DataError, match=r"generated=.* is no file"):
        array(tmp_path, what="generated")
    contents = {
        "empty": b"",
        "text": b"<html>404</html>",
        "pickle": pickle.dumps({"images": 1}),
        "magic": b"\x93NUMPY",
        "zip": b"PK\x03\x04",
    }
    for name, content in contents.items():
        for suffix in ("npy", "npz"):
            path = tmp_path / f"{name}.{suffix}"
            path.write_bytes(content)
            with pytest.raises(DataError, match=rf"{name}\.{suffix} cannot be read \(.+\): "):
                array(path)
    with zipfile.ZipFile(tmp_path / "png.npz", "w") as archive:
        archive.writestr("a/1.png", b"\x89PNG")
    with pytest.raises(DataError, match=r"png\.npz holds a/1\.png, which is no array.*data=image_folder"):
        array(tmp_path / "png.npz")
    with zipfile.ZipFile(tmp_path / "fake.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"not an array")
    with pytest.raises(DataError, match=r"fake\.npz cannot be read \(arr_0 in it is no array\)"):
        array(tmp_path / "fake.npz")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "trap.npz", arr_0=np.array([Trap()], dtype=object))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npy", "trap.npz", "raw.npy"):
        with pytest.raises(DataError, match=name):
            array(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz", "compressed npz"])
def test_cut_and_bitten_files_are_refused_or_read_right(tmp_path: Path, suffix: str, seed: int) -> None:
    """Cut anywhere: one message. A byte changed anywhere: one message, or an array (a .npy file has no checksum)."""
    randomness = np.random.default_rng(seed)
    buffer = io.BytesIO()
    {"npy": np.save, "npz": np.savez, "compressed npz": np.savez_compressed}[suffix](buffer, pictures(seed))
    whole = buffer.getvalue()
    path = tmp_path / f"a.{suffix[-3:]}"
    for cut in randomness.integers(len(whole), size=40):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.np[yz] "):
            array(path)
    for place in randomness.integers(min(len(whole), 300), size=60):
        bitten = bytearray(whole)
        bitten[place] ^= int(randomness.integers(1, 256))
        path.write_bytes(bytes(bitten))
        try:
            everything(array(path))
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
