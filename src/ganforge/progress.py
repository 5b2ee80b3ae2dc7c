"""A progress bar for work that takes long: on a terminal's stderr, and only once a second has passed."""

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE_SECONDS = 1.0

T = TypeVar("T")


def show_progress(
    steps: Iterable[T], total: int, what: str, size: Callable[[T], int] = lambda step: 1
) -> Generator[T, None, None]:
    """The steps, of which each has brought `size(step)` of `total`."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    # Several processes of one run share the terminal: the first one draws.
    wanted = sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    task = bar.add_task(what, total=total)
    began = time.monotonic()
    drawn = False
    try:
        for step in steps:
            bar.advance(task, size(step))
            if wanted and not drawn and time.monotonic() - began > PATIENCE_SECONDS:
                bar.start()
                drawn = True
            yield step
    finally:
        if drawn:  # otherwise stop() would write an empty line
            bar.stop()
