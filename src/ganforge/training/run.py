"""What the callbacks of one run share: its folder, its loggers, its evaluator, and when it ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from ganforge.evaluation.evaluator import Evaluator
from ganforge.training.loggers.logger import Loggers

log = logging.getLogger("ganforge")


@dataclass
class Run:
    """One training run.

    Attributes:
        folder: where everything of the run lies.
        loggers: where figures and pictures go.
        evaluator: makes the scores.
        total_images: the run ends at the first round that has shown this many.
        class_counts: images of each class in the data; empty when the run is unconditional.
        class_names: as many names.
        seed: the run's seed.
        config: the resolved configuration as plain data; it travels in every checkpoint.
        real_points: some real samples of 2-D data, float (N, 2), to draw behind the generated ones.
        scores: the last evaluation's figures.
        scored_at: images seen when they were made; -1 before the first.
        best: the best figures so far, by the evaluator's monitored score.
        paused_seconds: time spent on pictures, evaluation and checkpoints since the last log line.
        stop_signal: the signal that asked the run to stop, if one did.
    """

    folder: Path
    loggers: Loggers
    evaluator: Evaluator
    total_images: int
    class_counts: Sequence[int] = ()
    class_names: Sequence[str] = ()
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    real_points: Tensor | None = None
    scores: dict[str, float] = field(default_factory=dict)
    scored_at: int = -1
    best: dict[str, float] = field(default_factory=dict)
    paused_seconds: float = 0.0
    stop_signal: signal.Signals | None = None

    def reached_total(self, images_seen: int) -> bool:
        return images_seen >= self.total_images

    def ends(self, images_seen: int) -> bool:
        """Whether the round that ended at `images_seen` is this process's last one."""
        return self.reached_total(images_seen) or self.stop_signal is not None

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here is not training time: images/s leaves it out."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.paused_seconds += time.perf_counter() - start

    @contextlib.contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask for a stop at the end of the round; a second one takes effect at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def ask_to_stop(number: int, _: FrameType | None) -> None:
            self.stop_signal = signal.Signals(number)
            log.warning("%s: stopping after this round; once more stops at once", self.stop_signal.name)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        try:
            for number in previous:
                signal.signal(number, ask_to_stop)
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def crossed(period_kimg: float, before: int, after: int) -> bool:
    """Whether a multiple of the period lies in (before, after], counted in images. A period of 0 means never.

    A pure function of the clock: a resumed run does the same things at the same times.
    """
    period = round(period_kimg * 1000, 6)  # 2.007 * 1000 is a little more than 2007
    if period <= 0:
        return False
    return after // period > before // period
