"""Sample grids, small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ganforge.runs import Grid, RunFolder

BYTES = 2_400_000  # of all pictures of a page, before base64 makes them a third larger
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
        last = self._last(grids, room)
        if last is None:
            return []
        side, size = last
        number = min(max(int(room / size), FEWEST), MOST, len(grids))
        steps = [round(i * (len(grids) - 1) / max(number - 1, 1)) for i in range(number)]
        shown = []
        for grid in (grids[step] for step in dict.fromkeys(steps if number > 1 else [len(grids) - 1])):
            encoded = _webp(grid, side)
            if encoded is not None:
                shown.append([grid.kimg, "data:image/webp;base64," + base64.b64encode(encoded).decode()])
        return shown

    def _last(self, grids: Sequence[Grid], room: float) -> tuple[int, int] | None:
        """The side that fits, and the size of the last grid that can be read at it."""
        found = None
        for side in SIDES:
            encoded = next((e for grid in reversed(grids) if (e := _webp(grid, side)) is not None), None)
            if encoded is None:
                return None
            found = side, len(encoded)
            if FEWEST * len(encoded) <= room:
                break
        return found


def _webp(grid: Grid, side: int) -> bytes | None:
    """None for a picture that cannot be read, such as one that a full disk cut short."""
    try:
        with Image.open(grid.path) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError):
        return None
    if max(picture.size) > side:
        picture.thumbnail(
            (side, side), Image.Resampling.BOX if max(picture.size) > 2 * side else Image.Resampling.LANCZOS
        )
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=80, method=4)
    return file.getvalue()
