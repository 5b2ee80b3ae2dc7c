"""Pixels survive the trip to [-1, 1] and back; pictures hold what they were given."""

import math

import pytest
import torch
from PIL import Image

from ganforge.images import grid, save_animation, save_png, scatter, to_float, to_uint8


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


def read(path) -> torch.Tensor:
    with Image.open(path) as image:
        data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return data.view(image.height, image.width, -1).permute(2, 0, 1)


def test_all_levels_survive_the_trip_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert floats.min() == -1
    assert floats.max() == 1
    assert torch.equal(to_uint8(floats), levels)


def test_to_uint8_clamps_and_takes_half_precision_and_gradients():
    assert to_uint8(torch.tensor([-7.0, 7.0, math.inf, 0.0])).tolist() == [0, 255, 255, 128]
    noise = torch.randn(3, 1, 4, 4, requires_grad=True)
    assert to_uint8(noise.bfloat16()).dtype == torch.uint8
    assert not to_uint8(noise).requires_grad


def test_grid_places_images_row_by_row_on_white():
    images = random_images(5, 3, 40, 36)
    sheet = grid(images, columns=3, padding=2)
    assert sheet.shape == (3, 2 * 42 + 2, 3 * 38 + 2)
    for index, image in enumerate(images):
        top, left = 2 + index // 3 * 42, 2 + index % 3 * 38
        assert torch.equal(sheet[:, top : top + 40, left : left + 36], image)
    assert (sheet[:, 44:, 78:] == 255).all(), "the missing sixth image is white"
    assert (sheet[:, :2] == 255).all()


def test_grid_enlarges_small_images_by_whole_pixels():
    image = random_images(1, 1, 8, 8)
    sheet = grid(image, columns=4, padding=0, min_side=30)
    assert sheet.shape == (1, 32, 32)
    assert torch.equal(sheet[:, 1::4, 2::4], image[0])


@pytest.mark.parametrize(("shape", "columns"), [((0, 3, 8, 8), 2), ((3, 8, 8), 2), ((2, 3, 8, 8), 0)])
def test_grid_refuses(shape, columns):
    with pytest.raises(ValueError, match="a grid needs"):
        grid(random_images(*shape), columns)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_holds_pixels_and_text_and_nothing_else_is_left(tmp_path, channels):
    image = random_images(channels, 13, 17)
    path = tmp_path / "new" / "picture.png"
    text = {"config": "seed: 1\n" * 1000, "note": "γ → ∞"}
    save_png(path, image, text)
    assert torch.equal(read(path), image)
    with Image.open(path) as opened:
        opened.load()
        assert opened.text == text
    assert [each.name for each in path.parent.iterdir()] == ["picture.png"]


def test_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    save_png(path, random_images(1, 4, 4))
    before = path.read_bytes()

    def fill_the_disk(self, part, **options):
        part.write_bytes(before[:20])
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        save_png(path, random_images(1, 4, 4))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("image", [random_images(2, 4, 4), random_images(1, 3, 4, 4), torch.zeros(3, 4, 4)])
def test_png_refuses_what_is_no_picture(tmp_path, image):
    with pytest.raises(ValueError, match="a picture is uint8"):
        save_png(tmp_path / "x.png", image)


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_animation_holds_its_frames(tmp_path, suffix, channels):
    frames = [torch.full((channels, 16, 16), level, dtype=torch.uint8) for level in (0, 90, 255)]
    path = tmp_path / f"growth{suffix}"
    save_animation(path, frames, milliseconds=120)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
        for index, frame in enumerate(frames):
            animation.seek(index)
            level = animation.convert("RGB").getpixel((8, 8))[0]
            assert abs(level - int(frame[0, 0, 0])) <= 2
            assert animation.info["duration"] == 120


def test_animation_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"\.webp or \.gif"):
        save_animation(tmp_path / "growth.mp4", [random_images(3, 8, 8)])
    with pytest.raises(ValueError, match="at least one frame"):
        save_animation(tmp_path / "growth.gif", [])


def test_scatter_darkens_where_the_points_are_and_y_points_up():
    picture = scatter(torch.tensor([[0.5, 0.5]]), extent=1.0, size=101)
    assert picture.shape == (3, 101, 101)
    assert picture.dtype == torch.uint8
    ink = 255 - picture.float().mean(0)
    assert divmod(int(ink.argmax()), 101) == (25, 75)
    assert (ink > 0).sum() < 60


def test_scatter_keeps_generated_blue_over_grey_reference():
    points = torch.randn(200, 2) * 0.01 + 0.5
    reference = torch.randn(200, 2) * 0.01 - 0.5
    picture = scatter(points, 1.0, reference=reference).int()
    red, _, blue = picture[:, 64, 192]
    assert blue - red > 100
    assert picture[:, 192, 64].max() - picture[:, 192, 64].min() < 20
    assert 150 < picture[:, 192, 64].float().mean() < 240
    assert (picture[:, 10, 10] == 255).all()


def test_scatter_leaves_out_what_is_far_or_not_finite_and_takes_the_edge():
    empty = scatter(torch.tensor([[9.0, 0.0], [math.nan, 0.0], [0.0, math.inf]]), 1.0)
    assert (empty == 255).all()
    assert (scatter(torch.tensor([[1.0, -1.0]]), 1.0)[0, -1, -1]) < 200
    assert (scatter(torch.empty(0, 2), 1.0) == 255).all()


def test_scatter_refuses():
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        scatter(torch.zeros(4, 3), 1.0)
    with pytest.raises(ValueError, match="extent"):
        scatter(torch.zeros(4, 2), 0.0)
