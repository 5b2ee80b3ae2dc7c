"""Any folder or ZIP file of images, of any kind: read right, or refused with the reason and the way out."""

import io
import json
import multiprocessing
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ganforge.datasets.image_folder import image_folder
from ganforge.datasets.samples import DataError, Samples

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RANDOM = np.random.default_rng()


def smooth(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Random but smooth uint8 (H, W, C): survives JPEG."""
    coarse = RANDOM.integers(256, size=(2, 2, channels), dtype=np.uint8)
    bands = [
        Image.fromarray(coarse[:, :, band]).resize((width, height), Image.Resampling.BILINEAR)
        for band in range(channels)
    ]
    return np.stack([np.asarray(band) for band in bands], axis=2)


def save(path: Path, array: np.ndarray | None = None, **options) -> np.ndarray:
    array = smooth(8, 8) if array is None else array
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path, **options)
    return array


def zipped(folder: Path, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def pixels(data: Samples, index: int = 0) -> np.ndarray:
    return data[index].permute(1, 2, 0).numpy()


def error(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# Kinds of files


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".png", {}, 0),
        (".bmp", {}, 0),
        (".webp", {"lossless": True}, 0),
        (".webp", {"quality": 95}, 16),
        (".jpg", {"quality": 98, "subsampling": 0}, 10),
        (".JPEG", {"quality": 98, "subsampling": 0, "progressive": True}, 10),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(tmp_path, suffix, options, tolerance, channels):
    if suffix == ".webp":  # which knows no grey
        channels = 3
    array = save(tmp_path / f"a{suffix}", smooth(16, 16, channels), **options)
    data = image_folder(tmp_path)
    assert data.shape == (channels, 16, 16)
    assert data[0].dtype == torch.uint8
    # What the encoder loses is its own affair, and depends on the picture: nothing may be lost after the decoder.
    with Image.open(tmp_path / f"a{suffix}") as image:
        decoded = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(16, 16, channels)
    assert error(pixels(data), decoded) == 0
    assert np.abs(decoded.astype(int) - array).mean() <= tolerance


def test_sixteen_bits_keep_their_scale(tmp_path):
    levels = np.array([[0, 257], [128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    data = image_folder(tmp_path)
    assert data.shape == (1, 2, 2)
    assert pixels(data)[:, :, 0].tolist() == [[0, 1], [128, 255]]
    assert image_folder(tmp_path, channels=3).data[0, :, 1, 0].tolist() == [128, 128, 128]


def test_one_bit(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    assert pixels(image_folder(tmp_path))[:, :, 0].tolist() == (np.eye(4) * 255).tolist()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white_unless_asked_for(tmp_path, mode):
    colours = [(200, 40, 0), (200, 200, 200)][mode == "LA"]
    image = Image.new("RGBA", (3, 3), (*colours, 255))
    image.putpixel((0, 0), (*colours, 0))
    image.putpixel((1, 0), (*colours, 51))
    image.convert(mode).save(tmp_path / "a.png")
    expected = [[round(255 * (1 - a) + c * a) for c in colours] for a in (0.0, 0.2, 1.0)]
    assert error(pixels(image_folder(tmp_path, channels=3))[0], np.array(expected)) <= 1
    four = image_folder(tmp_path, channels=4)
    assert four.shape == (4, 3, 3)
    assert pixels(four)[0, :, 3].tolist() == [0, 51, 255]
    assert pixels(four)[0, 2].tolist() == [*colours, 255]
    assert image_folder(tmp_path).channels == (1 if mode == "LA" else 3)


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 1, 0])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=1)
    data = image_folder(tmp_path)
    assert data.channels == 3
    assert pixels(data, 0).tolist() == [[[255, 0, 0], [0, 0, 255]], [[0, 0, 255], [255, 0, 0]]]
    assert pixels(data, 1).tolist() == [[[255, 0, 0], [255] * 3], [[255] * 3, [255, 0, 0]]]


def test_cmyk_jpeg(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red.save(tmp_path / "a.jpg", quality=100)
    assert error(pixels(image_folder(tmp_path)), np.full((8, 8, 3), (255, 0, 0))) <= 12


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation_is_honoured(tmp_path, suffix):
    array = smooth(12, 12)
    array[:4, :4] = 0
    array[-4:, -4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    save(tmp_path / f"a{suffix}", array, exif=exif, quality=98)
    assert error(pixels(image_folder(tmp_path)), np.rot90(array, -1)) < 60


def test_grey_and_colour_mix_to_the_channels_of_the_first(tmp_path):
    save(tmp_path / "a.png", smooth(8, 8, 1))
    colour = save(tmp_path / "b.png")
    assert image_folder(tmp_path).shape == (1, 8, 8)
    data = image_folder(tmp_path, channels=3)
    assert error(pixels(data, 1), colour) == 0
    assert (pixels(data, 0)[:, :, 0] == pixels(data, 0)[:, :, 2]).all()


# Sizes and aspects


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (21, 20), (20, 20)])
def test_crop_takes_the_centre_at_the_first_images_short_side(tmp_path, width, height):
    array = save(tmp_path / "a.png", smooth(width, height))
    data = image_folder(tmp_path)
    assert data.shape == (3, 20, 20)
    top, left = (height - 20) // 2, (width - 20) // 2
    assert error(pixels(data), array[top : top + 20, left : left + 20]) == 0


@pytest.mark.parametrize(("width", "height"), [(32, 16), (16, 32), (400, 1)])
def test_pad_keeps_everything_between_black(tmp_path, width, height):
    save(tmp_path / "a.png", np.full((height, width, 3), 200, np.uint8))
    lit = pixels(image_folder(tmp_path, image_size=16, resize="pad"))[:, :, 0]
    assert set(np.unique(lit)) == {0, 200}
    assert (lit == 200).sum() == 16 * max(1, round(16 * min(width, height) / max(width, height)))
    assert (lit == np.rot90(lit, 2)).all() or min(width, height) == 1
    alpha = pixels(image_folder(tmp_path, image_size=16, resize="pad", channels=4))[:, :, 3]
    assert ((alpha == 255) == (lit == 200)).all()


def test_stretch_and_antialiasing(tmp_path):
    stripes = np.zeros((64, 128, 1), np.uint8)
    stripes[:, ::2] = 255
    save(tmp_path / "a.png", stripes)
    data = image_folder(tmp_path, image_size=16, resize="stretch")
    # Without antialiasing the stripes would come out black or white instead of grey.
    assert abs(pixels(data)[2:-2, 2:-2].astype(int) - 128).max() < 12
    whole = Image.open(tmp_path / "a.png").resize((16, 16), Image.Resampling.LANCZOS)
    assert (pixels(data)[:, :, 0] == np.asarray(whole)).all()


# Pixels as they are


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize(("width", "height"), [(12, 12), (20, 12), (7, 31)])
def test_refuse_takes_images_of_one_size_as_they_are(tmp_path, width, height, memory_gb):
    arrays = [save(tmp_path / f"{index}.png", smooth(width, height)) for index in range(3)]
    data = image_folder(tmp_path, resize="refuse", memory_gb=memory_gb)
    assert data.shape == (3, height, width)
    assert all(error(pixels(data, index), array) == 0 for index, array in enumerate(arrays))
    assert data.batch(torch.tensor([2, 0])).shape == (2, 3, height, width)
    if width == height:
        assert data.image_size == width
        assert image_folder(tmp_path, resize="refuse", image_size=width).shape == data.shape
    else:
        with pytest.raises(
            DataError, match=rf"has images of {width}x{height} pixels.*squares.*data\.resize=crop"
        ):
            _ = data.image_size


@pytest.mark.parametrize("on_corrupt", ["refuse", "skip"])
@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_refuse_names_the_image_of_another_size(tmp_path, memory_gb, on_corrupt):
    """Another size is no damage, so on_corrupt=skip does not leave it out."""
    save(tmp_path / "0.png", smooth(12, 8))
    save(tmp_path / "1.png", smooth(8, 12))
    with pytest.raises(
        DataError,
        match=r"1\.png is 8x12 pixels \(width x height\), not 12x8, and nothing may be resized.*"
        r"data\.resize=crop, pad or stretch and data\.image_size=SIZE",
    ):
        image_folder(tmp_path, resize="refuse", memory_gb=memory_gb, on_corrupt=on_corrupt)
    with pytest.raises(
        DataError,
        match=r"0\.png is 12x8 pixels \(width x height\), not 8x8, and nothing .* image_size=SIZE crops",
    ):
        image_folder(tmp_path, 8, 3, resize="refuse", memory_gb=memory_gb, what="generated")


def test_refuse_sees_the_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", smooth(12, 8), exif=exif)
    save(tmp_path / "b.png", smooth(8, 12))
    assert image_folder(tmp_path, resize="refuse").shape == (3, 12, 8)


def test_messages_name_the_setting_that_chose_the_files(tmp_path):
    with pytest.raises(DataError, match=r"^generated=.*absent does not exist"):
        image_folder(tmp_path / "absent", what="generated")
    with pytest.raises(DataError, match=r"^real=.* holds no files"):
        image_folder(tmp_path, what="real")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"^real=.*a\.zip is not a ZIP file"):
        image_folder(tmp_path / "a.zip", what="real")
    save(tmp_path / "cats/0.png")
    damage("truncated", tmp_path / "cats/1.png")
    with pytest.raises(DataError, match=r"1\.png cannot be decoded .*, or set on_corrupt=skip$"):
        image_folder(tmp_path, what="generated")
    with pytest.raises(DataError, match=r"or set real\.on_corrupt=skip$"):
        image_folder(tmp_path, what="real.root")
    save(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png .* or set num_classes=0 to take"):
        image_folder(tmp_path, what="generated")


# Order and classes


@pytest.fixture
def cats_and_dogs(tmp_path):
    root = tmp_path / "pets"
    for index in range(3):
        save(root / f"dogs/small/{index}.png")
        save(root / f"cats/{index}.jpg")
    (root / "cats/notes.txt").write_text("not an image")
    (root / ".DS_Store").write_bytes(b"litter")
    (root / "cats/._0.jpg").write_bytes(b"litter")
    (root / "__MACOSX/cats").mkdir(parents=True)
    (root / "__MACOSX/cats/0.jpg").write_bytes(b"litter")
    return root


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("pack", ["folder", "zip", "zip with one top folder"])
def test_sub_folders_are_classes_in_folders_and_zips(cats_and_dogs, tmp_path, pack, memory_gb):
    root = cats_and_dogs
    if pack != "folder":
        root = zipped(root.parent if "top" in pack else root, tmp_path.parent / f"{tmp_path.name}.zip")
    data = image_folder(root, memory_gb=memory_gb)
    assert data.class_names == ["cats", "dogs"]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.labels.dtype == torch.int64
    assert data.num_classes == 2
    assert data.in_memory == (memory_gb > 0)
    assert data.name == root.stem
    reference = image_folder(cats_and_dogs)
    assert all(torch.equal(data[index], reference[index]) for index in range(6))


def test_the_order_is_by_name_and_items_agree_with_batches(tmp_path):
    arrays = {name: save(tmp_path / name) for name in ("b.png", "a10.png", "a2.png", "C.png")}
    for memory_gb in (1.0, 0.0):
        data = image_folder(tmp_path, memory_gb=memory_gb)
        assert (data.num_classes, data.class_names, data.labels.tolist()) == (0, [], [0] * 4)
        for index, name in enumerate(sorted(arrays)):
            assert error(pixels(data, index), arrays[name]) == 0
        indices = torch.tensor([3, 0, 0])
        assert torch.equal(data.batch(indices), torch.stack([data[i] for i in indices.tolist()]))


def labelled(root: Path, labels: object) -> Path:
    for index in range(4):
        save(root / f"0000{index // 2}/img{index}.png")
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


@pytest.mark.parametrize("top", ["", "inner"])
def test_dataset_json_decides(tmp_path, top):
    labels = [[f"0000{index // 2}/img{index}.png", label] for index, label in enumerate((2, 0, 0, 4))]
    labelled(tmp_path / "set" / top, labels[::-1])
    for root in (tmp_path / "set", zipped(tmp_path / "set", tmp_path / "set.zip", zipfile.ZIP_DEFLATED)):
        data = image_folder(root)
        assert data.labels.tolist() == [2, 0, 0, 4]
        assert (data.num_classes, data.class_names) == (5, ["0", "1", "2", "3", "4"])
        assert image_folder(root, num_classes=10).num_classes == 10
        assert image_folder(root, num_classes=0).labels.tolist() == [0] * 4


def test_dataset_json_without_labels_means_no_classes(tmp_path):
    assert image_folder(labelled(tmp_path, None)).num_classes == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"labels": [["00000/img9.png", 1]]}', "labels 00000/img9.png .* does not exist"),
        ('{"labels": [["00000/img0.png", 1]]}', "has no label for 00000/img1.png"),
        ('{"labels": [["00000/img0.png", -1]]}', "whole number"),
        ('{"labels": [["00000/img0.png", 0.5]]}', "whole number"),
        ('{"labels": [["00000/img0.png", true]]}', "whole number"),
        ('{"labels": 3}', 'no list under "labels"'),
        ("[]", 'no list under "labels"'),
        ("{", "is not JSON"),
    ],
)
def test_bad_dataset_json_is_refused(tmp_path, content, message):
    labelled(tmp_path, None)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        image_folder(tmp_path)
    assert str(tmp_path / "dataset.json") in str(raised.value)


# What is wrong is said


def test_wrong_facts(cats_and_dogs):
    with pytest.raises(
        DataError, match=r"data\.num_classes=3 does not fit .*, which has 2: set data\.num_classes=2"
    ):
        image_folder(cats_and_dogs, num_classes=3)
    with pytest.raises(DataError, match=r"data\.num_classes=2 does not fit .*, which has 0"):
        image_folder(cats_and_dogs / "cats", num_classes=2)
    save(cats_and_dogs / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png lies beside sub-folders.*data\.num_classes=0"):
        image_folder(cats_and_dogs)
    assert len(image_folder(cats_and_dogs, num_classes=0)) == 7


@pytest.mark.parametrize(
    "argument", [{"channels": 2}, {"image_size": 0}, {"resize": "squeeze"}, {"on_corrupt": "ignore"}]
)
def test_wrong_arguments(tmp_path, argument):
    save(tmp_path / "a.png")
    ((key, value),) = argument.items()
    with pytest.raises(DataError, match=f"data.{key}={value}"):
        image_folder(tmp_path, **argument)


def test_missing_and_empty_roots(tmp_path):
    with pytest.raises(DataError, match=r"data\.root=PATH is needed"):
        image_folder(None)
    with pytest.raises(DataError, match=r"data\.root=.*absent does not exist"):
        image_folder(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no files: images end in \.jpg, \.jpeg, \.png, \.webp, \.bmp"):
        image_folder(tmp_path)
    (tmp_path / "a.tiff").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds 1 files but no images: images end in \.jpg"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match=r"a\.tiff is not a ZIP file"):
        image_folder(tmp_path / "a.tiff")
    assert issubclass(DataError, ValueError)


def test_broken_zip(cats_and_dogs, tmp_path):
    whole = zipped(cats_and_dogs, tmp_path / "whole.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.zip is not a ZIP file that can be read"):
        image_folder(tmp_path / "half.zip")
    place = whole.index(b"\x89PNG") + 60
    (tmp_path / "bitten.zip").write_bytes(whole[:place] + b"????" + whole[place + 4 :])
    with pytest.raises(DataError, match=r"bitten\.zip/dogs/small/.* cannot be decoded \(Bad CRC"):
        image_folder(tmp_path / "bitten.zip")


def damage(kind: str, path: Path) -> None:
    save(path, RANDOM.integers(256, size=(64, 64, 3), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"<html>404</html>"}[kind])


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["empty", "truncated", "text"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_corrupt_images_are_named_or_left_out(tmp_path, caplog, kind, suffix, memory_gb):
    good = [save(tmp_path / "a/0.png"), save(tmp_path / "b/2.png")]
    damage(kind, tmp_path / f"a/1{suffix}")
    with pytest.raises(DataError, match=rf"a/1\{suffix} cannot be decoded .*data\.on_corrupt=skip"):
        image_folder(tmp_path, memory_gb=memory_gb)
    data = image_folder(tmp_path, on_corrupt="skip", memory_gb=memory_gb)
    assert data.labels.tolist() == [0, 1]
    assert all(error(pixels(data, index), array) == 0 for index, array in enumerate(good))
    assert f"left out 1 of 3 images as corrupt: a/1{suffix}" in caplog.text
    assert len(data) == len(data.labels) == 2


def test_the_first_image_may_be_corrupt_and_all_may_not(tmp_path):
    damage("truncated", tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0\.png cannot be decoded"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match="none of its 1 images can be decoded"):
        image_folder(tmp_path, on_corrupt="skip")
    with pytest.raises(DataError, match="none of its 1 images can be decoded"):
        image_folder(tmp_path, on_corrupt="skip", image_size=8, channels=3)
    save(tmp_path / "1.png")
    assert image_folder(tmp_path, on_corrupt="skip").shape == (3, 8, 8)


def test_without_verification_a_corrupt_image_is_named_when_met(tmp_path):
    save(tmp_path / "0.png")
    damage("truncated", tmp_path / "1.png")
    data = image_folder(tmp_path, memory_gb=0.0, verify=False)
    assert len(data) == 2
    with pytest.raises(DataError, match=r"1\.png cannot be decoded"):
        data.batch(torch.tensor([0, 1]))


# Fingerprints, processes


def test_fingerprints_tell_every_change(tmp_path):
    arrays = [save(tmp_path / f"{side}/{index}.png") for side in "ab" for index in range(2)]

    def prints() -> list[str]:
        return [image_folder(tmp_path, memory_gb=memory_gb).fingerprint() for memory_gb in (1.0, 0.0)]

    first = prints()
    assert first == prints()
    arrays[0][3, 3, 1] ^= 1
    save(tmp_path / "a/0.png", arrays[0])
    second = prints()
    (tmp_path / "a/1.png").rename(tmp_path / "b/00.png")
    third = prints()
    assert all(len(set(three)) == 3 for three in zip(first, second, third, strict=True))
    assert image_folder(tmp_path, memory_gb=0.0, resize="pad").fingerprint() != third[1]


@pytest.mark.parametrize(
    ("kind", "start", "workers"), [("folder", "fork", 2), ("zip", "fork", 2), ("zip", "spawn", 1)]
)
def test_streamed_images_reach_workers(cats_and_dogs, tmp_path, kind, start, workers):
    root = cats_and_dogs if kind == "folder" else zipped(cats_and_dogs, tmp_path / "pets.zip")
    data = image_folder(root, memory_gb=0.0)
    expected = data.batch(torch.arange(6))
    loader = DataLoader(
        data, batch_size=2, num_workers=workers, multiprocessing_context=multiprocessing.get_context(start)
    )
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(pickle.loads(pickle.dumps(data)).batch(torch.arange(6)), expected)
    assert torch.equal(data.batch(torch.arange(6)), expected), "the parent's handle still works"


def test_loading_is_silent_off_a_terminal(cats_and_dogs, capfd):
    image_folder(cats_and_dogs)
    assert capfd.readouterr() == ("", "")


# Real files


@pytest.mark.parametrize(
    ("name", "count", "shape", "classes"),
    [
        ("cifar10-test2k.zip", 2000, (3, 32, 32), 10),
        ("facades128/train", 400, (3, 128, 128), 0),
        ("lemon2orange64/trainB", 500, (3, 64, 64), 0),
    ],
)
def test_real_images(name, count, shape, classes):
    if not (SHARED / name).exists():
        pytest.skip(f"no {name} at {SHARED}")
    data = image_folder(SHARED / name)
    assert (len(data), data.shape, data.num_classes) == (count, shape, classes)
    assert 80 < data.batch(torch.arange(count)).float().mean() < 200


def test_a_real_image_is_what_pillow_reads():
    path = SHARED / "cifar10-test2k.zip"
    if not path.exists():
        pytest.skip(f"no {path.name} at {SHARED}")
    data = image_folder(path)
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        index = int(RANDOM.integers(len(names)))
        image = Image.open(io.BytesIO(archive.read(names[index])))
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
    assert error(pixels(data, index), np.asarray(image)) == 0
    assert data.labels[index] == labels[names[index]]
