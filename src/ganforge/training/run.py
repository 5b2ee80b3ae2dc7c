"""What the callbacks of one run share: its folder, its loggers, its evaluator, and when it ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from ganforge.evaluation.evaluator import Evaluator, RealData
from ganforge.evaluation.ranks import Ranks
from ganforge.training.loggers.logger import Loggers
from ganforge.training.rollback import Rollbacks
from ganforge.training.stopping import Stopping

log = logging.getLogger("ganforge")

# A process may hear of one wish twice: from the terminal, and from a process that hands it on.
_SAME_SIGNAL_SECONDS = 1.0


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
        held_out: real samples that are not trained on, to tell how far the discriminator overfits.
        stopping: when the run ends before its total.
        scores: the figures of the last evaluation with few samples, which curves and best weights go by.
        scored_at: images seen when they were made; -1 before the first.
        final_scores: the figures of the evaluation with many samples that ended the run.
        best: the best figures so far, by the monitored one.
        kept: monitored value and kimg of the checkpoints kept as best, best first.
        protocols: the protocols of evaluations, by id, in the order in which the run used them.
        evaluations: a row for each evaluation: curve, kimg, number of samples, protocol and figures.
        goes_on: whether the run is worth going on with, asked after an evaluation with its figures and images seen;
            None where nobody says so. With several ranks the first one's answer counts.
        pruned: whether it was not: the run ends as it is, and can be resumed.
        played: images and seconds of training, without evaluation and pictures, over all its starts.
        paused_seconds: time that this process spent on pictures, evaluation and checkpoints.
        beside: figures to be logged with the next log line.
        overfitting: the figures of the discriminator's overfitting, as they were last measured, and when, in images.
        ended_because: why the run ends before its total, by a target or for want of patience; None while it goes on.
        unhealthy: why a check of the run's health stops it; None while it goes on.
        events: what the checks of its health said so far, plain data, a line of health.jsonl each.
        rollbacks: how often the run went back to an earlier checkpoint, and what it changed then.
        goes_back: whether it does so now.
        stop_signals: those that ask the run to stop at the end of a round.
        patient: whether a second one is left unheard instead of ending the process at once: a scheduler sends several.
        signal_seen: the signal that this process got, if it did.
        stop_signal: the signal for which the run stops, once all ranks know of it.
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
    held_out: RealData | None = None
    stopping: Stopping | None = None
    scores: dict[str, float] = field(default_factory=dict)
    scored_at: int = -1
    final_scores: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    kept: list[tuple[float, float]] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    paused_seconds: float = 0.0
    goes_on: Callable[[Mapping[str, float], int], bool] | None = None
    pruned: bool = False
    played: tuple[int, float] = (0, 0.0)
    beside: dict[str, float] = field(default_factory=dict)
    overfitting: tuple[int, dict[str, float]] = (-1, {})
    ended_because: str | None = None
    unhealthy: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    rollbacks: Rollbacks = field(default_factory=Rollbacks)
    goes_back: bool = False
    stop_signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    patient: bool = False
    signal_seen: signal.Signals | None = None
    stop_signal: signal.Signals | None = None
    _seconds_before: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run up to now, over all its starts."""
        return self._seconds_before + time.perf_counter() - self._started

    @property
    def images_per_second(self) -> float | None:
        """Speed over the whole run; None before anything of it was logged."""
        images, seconds = self.played
        return images / seconds if seconds > 0 else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run, as plain data."""
        return {
            "config": self.config,
            "run": self.folder.name,
            "class_counts": list(self.class_counts),
            "class_names": list(self.class_names),
            "scores": dict(self.scores),
            "scored_at": self.scored_at,
            "final_scores": dict(self.final_scores),
            "best": dict(self.best),
            "kept": [list(pair) for pair in self.kept],
            "protocols": list(self.protocols),
            "evaluations": [dict(row) for row in self.evaluations],
            "seconds": self.seconds,
            "played": list(self.played),
            "ended_because": self.ended_because,
            "stopping": self.stopping.state() if self.stopping else {},
            "events": [dict(event) for event in self.events],
            "rollbacks": asdict(self.rollbacks),
        }

    def restore(self, state: Mapping[str, Any], *, same_scores: bool) -> None:
        """Take what `state` gave.

        Args:
            same_scores: whether this process scores as that one did; else its scores compare with nothing here.
        """
        self._seconds_before = state["seconds"]
        images, seconds = state.get("played", (0, 0.0))  # runs of before this was kept
        self.played = images, seconds
        self.protocols = list(state["protocols"])
        self.evaluations = [dict(row) for row in state.get("evaluations", [])]
        self.events = [dict(event) for event in state.get("events", [])]
        self.rollbacks = Rollbacks(**state.get("rollbacks", {}))
        if same_scores:
            self.scores, self.best = dict(state["scores"]), dict(state["best"])
            self.scored_at = state.get("scored_at", -1)  # runs of before this was kept
            self.kept = [(value, kimg) for value, kimg in state["kept"]]
            if self.stopping and state["stopping"]:
                self.stopping.load_state(state["stopping"])

    def finishes(self, images_seen: int) -> bool:
        """Whether the round that ended at `images_seen` is the run's last one."""
        return self.reached_total(images_seen) or self.ended_because is not None

    def reached_total(self, images_seen: int) -> bool:
        return images_seen >= self.total_images

    def ends(self, images_seen: int) -> bool:
        """Whether the round that ended at `images_seen` is this process's last one."""
        stopped = self.stop_signal is not None or self.unhealthy is not None
        return self.finishes(images_seen) or stopped or self.pruned

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
        """SIGINT and the like ask for a stop at the end of the round; a second one takes effect at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {s: signal.getsignal(s) for s in self.stop_signals}
        heard = 0.0

        def ask_to_stop(number: int, _: FrameType | None) -> None:
            nonlocal heard
            if self.signal_seen is None:
                self.signal_seen, heard = signal.Signals(number), time.monotonic()
                if Ranks.current().size == 1:
                    self.stop_signal = self.signal_seen
                again = "" if self.patient else "; once more stops at once"
                log.warning("%s: stopping after this round%s", self.signal_seen.name, again)
            elif not self.patient and time.monotonic() - heard > _SAME_SIGNAL_SECONDS:
                signal.signal(number, previous[signal.Signals(number)])
                signal.raise_signal(number)

        if self.signal_seen is not None and Ranks.current().size == 1:  # while this run was getting ready
            self.stop_signal = self.signal_seen

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
