"""A study of Optuna that several drivers play, on one machine or several, over as many starts as it takes.

A study has as many trials from its beginning as it is to have, all of them waiting. A driver takes one by setting its
state from waiting to running, which every storage lets one driver only do: so there are never more than were asked for,
and a trial's number, its point and its folder stay together. Each driver leaves signs of life in the study. A running
trial whose driver gives none is taken over as it is; where two drivers reach for it, the one whose name stands in it
after a moment has it, and the other lets go.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.secrets import shown, without_secrets
from ganforge.commands.sweeps import alive

log = logging.getLogger("ganforge")

_LOCK_SECONDS = 10  # of a writer to a study's file that was killed while it wrote
_SETTLE_SECONDS = 0.5  # for others to have written their names into a trial that was taken over, too
_NAMELESS_SECONDS = 5.0  # between a trial's start and its driver's name in it
_BEAT_SECONDS = 10.0
_ATTEMPTS = 20

Values = list[float]
Direction = Literal["minimize", "maximize"]


@dataclass
class Taken:
    """A trial that this driver plays.

    Attributes:
        number: in the study.
        point: the values of its dimensions.
        facts: what it had been noted for it when it was taken.
    """

    number: int
    point: dict[str, Any]
    facts: dict[str, Any]
    trial: optuna.Trial


class SharedStudy:
    """
    Args:
        storage: where it is kept.
        name: of the study.
        directions: `minimize` or `maximize` for each value.
        n_trials: how many it has in all.
        distributions: of each dimension.
        sampler: makes one for the trial of a number: what it draws depends on nothing else but the trials before.
        pruner: says which trials are not worth going on with.
        facts: plain data that every driver of the study has to share.
        dead_after_seconds: how long a driver on another machine may be silent.

    Raises:
        UserError: the study was begun otherwise, with what differs.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        directions: Sequence[Direction],
        n_trials: int,
        distributions: Mapping[str, BaseDistribution],
        sampler: Callable[[int], BaseSampler],
        pruner: BasePruner,
        facts: Mapping[str, Any],
        dead_after_seconds: float = 120.0,
    ) -> None:
        self.name, self.n_trials, self.directions = name, n_trials, list(directions)
        self._distributions, self._sampler = dict(distributions), sampler
        self._dead_after = dead_after_seconds
        self._study = _create(storage, name, directions, pruner, sampler(0))
        self._storage = self._study._storage
        self._agree(facts)
        self._driver = uuid.uuid4().hex[:12]
        self._here = alive.machine()
        self._beats, self._next_beat = 0, 0.0
        self._silent_since: dict[str, tuple[Any, float]] = {}
        self.beat()
        self._fill()

    def beat(self) -> None:
        """Leaves a sign of life, where the last one is some time ago."""
        if time.monotonic() < self._next_beat:
            return
        self._beats += 1
        self._next_beat = time.monotonic() + min(_BEAT_SECONDS, self._dead_after / 4)
        sign = {"machine": self._here, "process": alive.process(), "beat": self._beats}
        self._study.set_user_attr(f"driver:{self._driver}", sign)

    def take(self) -> Taken | None:
        """A trial to play: one that another driver left, or a new one; None where there is none now."""
        trials = self._all()
        for frozen in trials:
            if frozen.state == TrialState.RUNNING and self._is_left(frozen) and self._claim(frozen):
                return self._taken(frozen)
        for frozen in trials:
            if frozen.state == TrialState.WAITING and self._begin(frozen):
                return self._taken(frozen)
        return None

    @property
    def is_finished(self) -> bool:
        """Whether every trial is."""
        return all(trial.state.is_finished() for trial in self._all())

    def trials(self) -> list[FrozenTrial]:
        """All that were begun, by number."""
        return [trial for trial in self._all() if trial.state != TrialState.WAITING]

    def note(self, taken: Taken, key: str, value: Any) -> None:
        """Keeps plain data with a trial that is not finished."""
        taken.facts[key] = value
        self._update(taken, lambda: taken.trial.set_user_attr(key, value))

    def is_mine(self, taken: Taken) -> bool:
        """Whether no other driver took it over, having believed this one dead."""
        frozen = self._storage.get_trial(taken.trial._trial_id)
        return frozen.state == TrialState.RUNNING and frozen.user_attrs.get("driver") == self._driver

    def goes_on(self, taken: Taken, value: float, images_seen: int) -> bool:
        """Whether a trial with this value after so many images is worth going on with, by the pruner."""
        if len(self.directions) > 1 or value != value:
            return True
        if images_seen not in self._storage.get_trial(taken.trial._trial_id).intermediate_values:
            self._update(taken, lambda: taken.trial.report(value, images_seen))
        return not taken.trial.should_prune()

    def tell(self, taken: Taken, state: TrialState, values: Values | None = None) -> None:
        """Finishes a trial, unless another driver did."""
        if self.is_mine(taken):
            self._update(taken, lambda: self._study.tell(taken.trial, values, state, skip_if_finished=True))

    def release(self, taken: Taken) -> None:
        """Leaves a trial as it is, for any driver to go on with."""
        if self.is_mine(taken):
            self.note(taken, "driver", None)

    def best(self) -> list[FrozenTrial]:
        """The best trial, or the front of several directions: none is better in all."""
        complete = any(trial.state == TrialState.COMPLETE for trial in self._all())
        return sorted(self._study.best_trials, key=lambda t: t.number) if complete else []

    def _update(self, taken: Taken, update: Callable[[], Any]) -> None:
        try:
            update()
        except UpdateFinishedTrialError:  # by a driver that believed this one dead
            log.warning("trial %d was finished by another driver", taken.number)

    def _all(self) -> list[FrozenTrial]:
        """Those that are asked for; where two drivers made them at once there are more, for later."""
        self._study._thread_local.cached_all_trials = None
        trials = self._storage.get_all_trials(self._study._study_id, deepcopy=False)
        return [trial for trial in trials if trial.number < self.n_trials]

    def _fill(self) -> None:
        for _ in range(self.n_trials - len(self._all())):
            self._study.add_trial(create_trial(state=TrialState.WAITING))

    def _begin(self, frozen: FrozenTrial) -> bool:
        try:
            begun = self._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False
        if begun:
            self._storage.set_trial_user_attr(frozen._trial_id, "driver", self._driver)
        return begun

    def _is_left(self, frozen: FrozenTrial) -> bool:
        """Whether nobody plays a running trial any more."""
        facts = frozen.user_attrs
        driver = facts.get("driver", "")
        if driver == self._driver:
            return False
        if driver is None:
            return self._job_is_over(facts)
        sign = self._study.user_attrs.get(f"driver:{driver}")
        if sign is None:
            return self._is_silent(f"trial {frozen.number}", driver, _NAMELESS_SECONDS)
        if sign["machine"] == self._here:
            return not alive.lives(sign["process"]) and self._job_is_over(facts)
        return self._is_silent(driver, sign["beat"], self._dead_after)

    def _job_is_over(self, facts: Mapping[str, Any]) -> bool:
        """A driver that was killed leaves a job that is about to end, and still writes to its folder."""
        machine, name = facts.get("job") or ("", "")
        return machine != self._here or not alive.lives(name)

    def _is_silent(self, who: str, sign: Any, seconds: float) -> bool:
        """By this process's own clock: those of two machines may differ."""
        seen, since = self._silent_since.get(who, (None, 0.0))
        if seen != (sign,):
            self._silent_since[who] = ((sign,), time.monotonic())
            return False
        return time.monotonic() - since > seconds

    def _claim(self, frozen: FrozenTrial) -> bool:
        try:
            self._storage.set_trial_user_attr(frozen._trial_id, "driver", self._driver)
        except UpdateFinishedTrialError:
            return False
        time.sleep(_SETTLE_SECONDS)
        now = self._storage.get_trial(frozen._trial_id)
        return now.state == TrialState.RUNNING and now.user_attrs.get("driver") == self._driver

    def _taken(self, frozen: FrozenTrial) -> Taken:
        """Where its point was not yet drawn, or not all of it, that is done now."""
        self._study._thread_local.cached_all_trials = None
        self._study.sampler = self._sampler(frozen.number)
        trial = optuna.Trial(self._study, frozen._trial_id)
        point = {name: trial._suggest(name, each) for name, each in self._distributions.items()}
        return Taken(frozen.number, point, dict(trial.user_attrs), trial)

    def _agree(self, facts: Mapping[str, Any]) -> None:
        there = self._study.user_attrs.get("facts")
        if there is None:
            self._study.set_user_attr("facts", dict(facts))
        elif there != facts:
            for key in facts:
                if there.get(key) != facts[key]:
                    difference = _difference(there.get(key), facts[key])
                    raise UserError(
                        f"the study {self.name!r} was begun otherwise, {key}: {difference}; "
                        "sweep.study=... begins another one"
                    )


def _difference(there: Any, here: Any) -> str:
    """What is only in one of the two, in words."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        there, here = [sorted(f"{k}: {v}" for k, v in each.items()) for each in (there, here)]
    if isinstance(there, list) and isinstance(here, list):
        only = [
            [str(each) for each in one if each not in other] for one, other in ((there, here), (here, there))
        ]
        there, here = (", ".join(each) or "nothing more" for each in only)
    return f"{there} there, and {here} here"


def _create(
    storage: BaseStorage, name: str, directions: Sequence[Direction], pruner: BasePruner, sampler: BaseSampler
) -> optuna.Study:
    for attempt in range(_ATTEMPTS):
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=directions,
                pruner=pruner,
                sampler=sampler,
                load_if_exists=True,
            )
        except DuplicatedStudyError:  # another driver made it in the same moment
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.1)
        else:
            break
    there = [direction.name.lower() for direction in study.directions]
    if there != [str(direction) for direction in directions]:
        raise UserError(
            f"the study {name!r} was begun to {' and '.join(there)}, and this is to {' and '.join(directions)}; "
            "sweep.study=... begins another one"
        )
    return study


def open_storage(where: str | None, folder: Path) -> BaseStorage:
    """
    Args:
        where: a URL as SQLAlchemy takes it, or a file; None for a file in the folder.
        folder: the sweep's.

    Raises:
        UserError: it cannot be reached, or there is no such kind of storage.
    """
    if where is None or "://" not in where:
        file = Path(where).expanduser() if where else folder / "study.journal"
        return _journal(file.absolute())
    url = where.replace("postgresql://", "postgresql+psycopg://", 1)
    for attempt in range(_ATTEMPTS):
        try:
            storage = RDBStorage(url, engine_kwargs=_engine(url))
            if url.startswith("sqlite"):
                _lock_from_the_beginning(storage.engine)
            return storage
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
            way_out = (
                "pip install 'ganforge[postgresql]'"
                if "psycopg" in str(error)
                else "another kind of database"
            )
            raise UserError(
                f"sweep.storage={shown(where)}: {without_secrets(str(error))}; {way_out}"
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
            # Drivers that start at once make the same tables, and all but one of them fail.
            made_by_another = any(
                words in str(error) for words in ("already exists", "duplicate key", "UNIQUE")
            )
            if not made_by_another or attempt == _ATTEMPTS - 1:
                said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
                raise UserError(f"sweep.storage={shown(where)}: {without_secrets(said)}") from None
            time.sleep(random.uniform(0.05, 0.3))
    raise AssertionError("the last attempt returns or raises")


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """
    Raises:
        RunFailedError: the study can no longer be read or written. The same command goes on when it can.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        said = str(getattr(cause, "orig", None) or cause or error).strip().splitlines()[0]
        message = f"the study cannot be read or written any more: {without_secrets(said)}"
        raise RunFailedError(f"{message}; the same command goes on with it") from None


def _engine(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}  # seconds, in which another driver may write
    return {"pool_pre_ping": True}  # a server may have been restarted


def _lock_from_the_beginning(engine: sqlalchemy.Engine) -> None:
    """SQLite knows no SELECT ... FOR UPDATE: two transactions could both read that a trial waits, and both take it."""

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # Python would begin them by itself, without a lock

    sqlalchemy.event.listen(engine, "connect", connect)
    sqlalchemy.event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # connections of before


def _journal(file: Path) -> BaseStorage:
    """The path has to be absolute: the lock is a link to it, whose age says whether its owner is dead."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(str(file), grace_period=_LOCK_SECONDS)
        if file.exists():
            _mend(file, lock)
        return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {error.strerror}; sweep.storage=... is another place"
        ) from error
    except ValueError as error:
        raise UserError(f"{file} is not a study's file: {error}; sweep.storage=... names another") from error


def _mend(file: Path, lock: JournalFileSymlinkLock) -> None:
    """Takes off a last line that a crash of the machine cut short: nobody has read it."""
    lock.acquire()
    try:
        with file.open("rb+") as text:
            size = text.seek(0, os.SEEK_END)
            start = max(0, size - 2**20)
            text.seek(start)
            end = text.read()
            if end and not end.endswith(b"\n"):
                text.truncate(start + end.rfind(b"\n") + 1)
    finally:
        lock.release()
