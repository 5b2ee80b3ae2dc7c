"""Sample grids, small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ganforge.runs import Grid, RunFolder

BYTES = 2_200_000  # of all pictures of a page, before base64 makes them a third larger
MOST, FEWEST = 40, 2  # grids of one run
SIDES = (360, 240, 160)  # pixels of the longer side, the largest that leaves room for the fewest grids


class Embedded:
    """Picks grids evenly over a run's time, always the first and the last, and re-encodes them as WebP.

    Args:
        runs: how many share the page.
    """

    def __init__(self, runs: int) -> None:
        self._bytes = BYTES / max(runs, 1)

    def __call__(self, run: RunFolder, grids: Sequence[Grid]) -> list[list[Any]]:
        room = self._bytes / max(len(run.grids), 1)
        last = next((made for grid in reversed(grids) if (made := _webp(grid, SIDES[0])) is not None), None)
        if last is None:
            return []
        encoded, size = last
        # Of half the side it takes a quarter of the bytes, or a little more.
        sizes = {side: 1.2 * len(encoded) * min(side / max(size), 1.0) ** 2 for side in SIDES}
        side = next((side for side in SIDES if FEWEST * sizes[side] <= room), SIDES[-1])
        number = min(max(int(room / sizes[side]), FEWEST), MOST, len(grids))
        shown = []
        for step in dict.fromkeys(round(i * (len(grids) - 1) / max(number - 1, 1)) for i in range(number)):
            made = _webp(grids[step], side)
            if made is not None:
                source = "data:image/webp;base64," + base64.b64encode(made[0]).decode()
                shown.append([grids[step].kimg, source])
        return shown


def _webp(grid: Grid, side: int) -> tuple[bytes, tuple[int, int]] | None:
    """The picture and its size; None where it cannot be read, as after a full disk."""
    try:
        with Image.open(grid.path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError):
        return None
    if max(picture.size) > side:
        picture.thumbnail(
            (side, side), Image.Resampling.BOX if max(picture.size) > 2 * side else Image.Resampling.LANCZOS
        )
    # Enlarged pixels are smaller without loss, photographs with it.
    encoded = []
    for lossless in (True, False):
        file = io.BytesIO()
        picture.save(file, format="WEBP", quality=75, method=2, lossless=lossless)
        encoded.append(file.getvalue())
    return min(encoded, key=len), picture.size
