"""One driver of a search: it takes trials from the study, plays each as one or several jobs, and tells their ends."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from optuna.trial import TrialState

from ganforge.commands.errors import RunFailedError
from ganforge.commands.sweeps import alive
from ganforge.commands.sweeps.jobs import Ended, Evaluated, Jobs
from ganforge.commands.sweeps.results import summary, write_trials
from ganforge.commands.sweeps.space import Space, essential
from ganforge.commands.sweeps.study import SharedStudy, Taken

log = logging.getLogger("ganforge")

_LOOK_SECONDS = 1.0  # at the study, for trials that others left
_MOST_DEATHS = 3  # of a trial's jobs, before it counts as failed


@dataclass(frozen=True)
class Plan:
    """What a search is of.

    Attributes:
        folder: the sweep's, with a sub-folder a job.
        metrics: the figures that are searched by.
        sampler: its name, for trials.json.
        space: what differs between trials.
        words: a job's command line, of its trial's number, its settings and its folder.
        seeds: the seed of each run of a trial; empty for one run with the seed that its settings say.
        gpus: how many a job takes, None for all.
    """

    folder: Path
    metrics: Sequence[str]
    sampler: str
    space: Space
    words: Callable[[int, Sequence[str], Path], list[str]]
    seeds: Sequence[int] = ()
    gpus: int | None = 1

    def names(self, number: int) -> list[str]:
        """Of a trial's jobs, which are those of their folders."""
        return [f"{number}_seed{seed}" for seed in self.seeds] or [str(number)]


@dataclass
class _Playing:
    """A trial and its runs that are not finished, the present one first."""

    taken: Taken
    names: list[str]
    done: dict[str, dict[str, float]] = field(default_factory=dict)
    pruned: bool = False


class Search:
    """Plays until every trial of the study is finished, by this driver or another.

    The pruner looks at a trial's first run; the others follow where that one came to its end.

    Raises:
        RunFailedError: a signal stopped it. The same search goes on where it was.
    """

    def __init__(self, plan: Plan, study: SharedStudy, jobs: Jobs) -> None:
        self._plan, self._study, self._jobs = plan, study, jobs
        self._playing: dict[str, _Playing] = {}

    def run(self) -> None:
        self._write()
        while True:
            self._fill_up()
            if not self._playing and (self._jobs.seen or self._study.is_finished):
                break
            event = self._jobs.next(_LOOK_SECONDS)
            if isinstance(event, Evaluated):
                self._evaluated(event)
            elif isinstance(event, Ended):
                self._ended(event)
            self._study.beat()
        self._write()
        if self._jobs.seen:
            message = f"the search is stopped by {self._jobs.seen.name}; the same command goes on with it"
            raise RunFailedError(message, 128 + self._jobs.seen)

    def _fill_up(self) -> None:
        while self._jobs.free > 0:
            taken = self._study.take()
            if taken is None:
                return
            done = taken.facts.get("scores", {})
            names = [name for name in self._plan.names(taken.number) if name not in done]
            self._play(_Playing(taken, names, dict(done)))

    def _play(self, playing: _Playing) -> None:
        """The next run of a trial, or its end."""
        if not playing.names:
            self._complete(playing)
            return
        if self._jobs.seen:
            self._study.release(playing.taken)
            return
        name, number = playing.names[0], playing.taken.number
        settings = self._settings(playing)
        folder = self._plan.folder / name
        before = _settings_in(folder)
        if before is not None and essential(before) != essential(settings):
            self._finish(playing, TrialState.FAIL, f"{folder} holds another run")
            return
        process = self._jobs.start(
            name, self._plan.words(number, settings, folder), self._plan.gpus, again=before is not None
        )
        self._playing[name] = playing
        self._study.note(playing.taken, "job", [alive.machine(), alive.process(process)])

    def _settings(self, playing: _Playing) -> list[str]:
        words = self._plan.space.words(playing.taken.point)
        if self._plan.seeds:
            words.append(f"seed={playing.names[0].rpartition('_seed')[2]}")
        return words

    def _evaluated(self, event: Evaluated) -> None:
        playing = self._playing[event.name]
        goes_on = True
        if not self._study.is_mine(playing.taken):
            goes_on = False
        elif not playing.done:
            value = event.scores.get(self._plan.metrics[0], math.nan)
            goes_on = self._study.goes_on(playing.taken, value, event.images_seen)
            playing.pruned = not goes_on
        self._jobs.answer(event.name, goes_on=goes_on)

    def _ended(self, event: Ended) -> None:
        playing = self._playing.pop(event.name)
        if not self._study.is_mine(playing.taken):
            log.warning("trial %d was taken over by another driver", playing.taken.number)
        elif self._jobs.seen and event.exit_code:
            log.info("trial %d: %s", playing.taken.number, event.error)
            self._study.release(playing.taken)
        elif event.exit_code < 0 or event.stopped:
            self._died(playing, event)
        elif event.error is not None:
            self._finish(playing, TrialState.FAIL, event.error)
        elif playing.pruned:
            self._finish(playing, TrialState.PRUNED)
        else:
            self._scored(playing, event)

    def _died(self, playing: _Playing, event: Ended) -> None:
        """Something outside ended the job, such as a lack of memory: it goes on from its last checkpoint."""
        deaths = playing.taken.facts.get("deaths", 0) + 1
        if deaths >= _MOST_DEATHS:
            self._finish(playing, TrialState.FAIL, f"{event.error}, as {deaths} times in all")
            return
        self._study.note(playing.taken, "deaths", deaths)
        log.warning("trial %d: %s; it is started again", playing.taken.number, event.error)
        self._play(playing)

    def _scored(self, playing: _Playing, event: Ended) -> None:
        scores = event.returned if isinstance(event.returned, Mapping) else {}
        for metric in self._plan.metrics:
            value = scores.get(metric)
            if not isinstance(value, int | float) or not math.isfinite(value):
                said = "not among its scores" if value is None else f"{value}"
                self._finish(playing, TrialState.FAIL, f"{metric} is {said}")
                return
        playing.done[playing.names.pop(0)] = {metric: float(scores[metric]) for metric in self._plan.metrics}
        self._study.note(playing.taken, "scores", playing.done)
        self._play(playing)

    def _complete(self, playing: _Playing) -> None:
        runs = list(playing.done.values())
        values = [statistics.fmean(run[metric] for run in runs) for metric in self._plan.metrics]
        if len(runs) > 1:
            spreads = [statistics.stdev(run[metric] for run in runs) for metric in self._plan.metrics]
            self._study.note(playing.taken, "spreads", spreads)
        self._finish(playing, TrialState.COMPLETE, values=values)

    def _finish(
        self,
        playing: _Playing,
        state: TrialState,
        error: str | None = None,
        values: list[float] | None = None,
    ) -> None:
        if error is not None:
            self._study.note(playing.taken, "error", error)
        self._study.tell(playing.taken, state, values)
        trials = self._study.trials()
        said = summary(trials[[t.number for t in trials].index(playing.taken.number)], self._plan.metrics)
        finished = sum(trial.state.is_finished() for trial in trials)
        say = log.error if state == TrialState.FAIL else log.info
        say("trial %d: %s (%d of %d)", playing.taken.number, said, finished, self._study.n_trials)
        self._write()

    def _write(self) -> None:
        write_trials(self._plan.folder / "trials.json", self._study, self._plan.sampler, self._plan)


def _settings_in(folder: Path) -> list[str] | None:
    """What the run in a folder was asked for; None where there is none."""
    if not (folder / "config.yaml").exists():
        return None
    try:
        words = yaml.safe_load((folder / "overrides.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return []
    return [word for word in words if not word.startswith("hydra.searchpath=")]
