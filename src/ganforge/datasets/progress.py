"""A progress bar for loading that takes long: on a terminal's stderr, and only once a second has passed."""

import os
import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE_SECONDS = 1.0


def show_progress(steps: Iterable[int], total: int, what: str) -> Iterator[None]:
    """Runs through `steps`, each the number of items it finished out of `total`."""
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
        for finished in steps:
            bar.advance(task, finished)
            if wanted and not drawn and time.monotonic() - began > PATIENCE_SECONDS:
                bar.start()
                drawn = True
            yield
    finally:
        if drawn:  # otherwise stop() would write an empty line
            bar.stop()
