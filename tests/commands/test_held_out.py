"""What `train held_out=...` takes for images that are not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganforge.commands.errors import UserError
from ganforge.commands.held_out import held_out_data
from ganforge.datasets.samples import TensorSamples


def trained_on() -> TensorSamples:
    return TensorSamples("numbers", torch.zeros(4, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("resize", ["crop", "stretch", "lanczos", None])
def test_pictures_come_to_the_size_of_those_trained_on(resize: str | None, tmp_path: Path) -> None:
    for i in range(3):
        pixels = np.random.default_rng().integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    settings = {"held_out": str(tmp_path), "data": {"resize": resize}, "num_classes": 0}
    found = held_out_data(settings, trained_on())
    assert found is not None
    assert found.shape == (1, 8, 8)
    assert len(found) == 3


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no images")
    settings = {"held_out": str(tmp_path / "notes.txt"), "data": {}, "num_classes": 0}
    with pytest.raises(UserError, match=r"notes\.txt is no kind of file"):
        held_out_data(settings, trained_on())
