"""Watches what experienced people watch, says in words what goes wrong, and stops the run or goes back if asked to."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from ganforge.draws import Draws, derive_seed
from ganforge.evaluation.ranks import Ranks
from ganforge.images import to_float
from ganforge.networks.layers.growing import Growing
from ganforge.training.callbacks.periodic import Periodic, module_and_run
from ganforge.training.gradients import average_
from ganforge.training.health.check import Action, Check, Finding
from ganforge.training.health.measures import SingularValues, distances, diversity, excerpt, movement
from ganforge.training.health.nonfinite import NonFinite
from ganforge.training.health.speed import DeadLoader
from ganforge.training.health.steps import SIDES
from ganforge.training.meter import Interval, NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.rollback import GOOD, LAST, GoBackError, mark_as_good
from ganforge.training.run import Run, crossed

log = logging.getLogger("ganforge")

_MOST_CLASSES = 8
_SECONDS = 1.0  # times of less are mostly noise
_STEPS_AT_START = 10
_NEAR = 16


class Health(Periodic):
    """Takes a reading each `every_kimg`, and after each evaluation, and shows it to the checks.

    A reading holds the means of all that training logs since the one before; how far both players' weights moved and
    their largest singular values; how alike the images are that the generator's average makes of the same latents;
    figures of evaluation and of overfitting, when there are new ones; and how long rounds took and waited for data.
    What is measured here is logged as `health/...`. Each episode is said once, in the log, in the run's health.jsonl,
    as an alert and in the run's summary.

    A run that goes back takes up its last good checkpoint, checkpoints/good.ckpt, with learning rates multiplied by
    `learning_rate_factor`, or with another seed, or both. Good is the last.ckpt that was there when a reading found
    nothing suspicious. That the run went back is in its checkpoints: resumed, it is the run that was not interrupted.

    Args:
        checks: by name; None for one that is left out.
        every_kimg: period.
        num_images: generated and real images that are compared.
        at_most_rollbacks: how often a run may go back; after that it stops.
        learning_rate_factor: at each time.
        new_seed: whether the rounds after it are drawn anew.
    """

    def __init__(
        self,
        checks: Mapping[str, Check | None],
        every_kimg: float = 1.0,
        num_images: int = 64,
        at_most_rollbacks: int = 2,
        learning_rate_factor: float = 0.5,
        new_seed: bool = False,
    ) -> None:
        super().__init__(every_kimg)
        self.checks = {name: check for name, check in checks.items() if check is not None}
        if num_images < 2:
            raise ValueError(f"num_images={num_images} must be at least 2, to be compared")
        if at_most_rollbacks < 0:
            raise ValueError(f"at_most_rollbacks={at_most_rollbacks} must be at least 0")
        if not 0 < learning_rate_factor <= 1:
            raise ValueError(f"learning_rate_factor={learning_rate_factor} must be above 0 and at most 1")
        if self.rolls_back and learning_rate_factor == 1 and not new_seed:
            raise ValueError(
                "learning_rate_factor=1: a run that goes back would do the same again; a smaller one, or new_seed=true"
            )
        self.num_images = num_images
        self.at_most_rollbacks = at_most_rollbacks
        self.learning_rate_factor = learning_rate_factor
        self.new_seed = new_seed
        self._interval: Interval | None = None
        self._facts: dict[str, float] = {}
        self._real: Tensor | None = None
        self._shape = torch.Size()
        self._classes: list[int] = []
        self._excerpts: dict[str, Tensor] = {}
        self._excerpts_round = 0
        self._singular: dict[str, SingularValues] = {}
        self._largest_at_start: dict[str, float] = {}
        self._stored: dict[str, Any] = {}
        self._clock = _Clock()
        self._wanted: list[tuple[Action, str]] = []
        self._lock = threading.Lock()
        self._watchdog: _Watchdog | None = None

    @property
    def rolls_back(self) -> bool:
        return any(check.action == "rollback" for check in self.checks.values())

    def due(self, module: AdversarialModule, run: Run) -> bool:
        # Not when a signal asks the run to stop: it would take other readings than one that is not interrupted.
        before = module.images_seen - module.images_per_round
        return (
            crossed(self.every_kimg, before, module.images_seen)
            or run.finishes(module.images_seen)
            or run.scored_at == module.images_seen
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module, _ = module_and_run(pl_module)
        if self._interval is None:
            self._interval = module.meter.interval()
        self._stored = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, run = module_and_run(pl_module)
        assert self._interval is not None
        with run.pause():
            if trainer.is_global_zero:
                self._look_at_data(trainer, module, run)
                self._begin(module, run)
                _write(run.folder / "health.jsonl", run.events)
                run.loggers.summary({"health/events": len(run.events)})
            for name, (total, count) in self._stored.get("sums", {}).items():
                self._interval.sums[name] = (
                    torch.tensor(total, dtype=torch.float64, device=module.device),
                    count,
                )
            self._stored = {}
            if self.rolls_back:
                self._keep_a_start(trainer, module, run)
        self._clock.start(module, run)
        loaders = {name: check for name, check in self.checks.items() if isinstance(check, DeadLoader)}
        if loaders and trainer.is_global_zero:
            self._watchdog = _Watchdog(self, loaders, module, run)

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        assert self._interval is not None
        timed = self._clock.read(module, run)  # first: all that follows is a pause
        signals = {**_with_meaning(self._interval.means(), module), **timed}
        asked: tuple[Action, str] | None = None
        if trainer.is_global_zero:
            asked = self._read(signals, module, run)
        (asked,) = Ranks.current().from_first((asked,))
        if asked is None:
            return
        action, why = asked
        if action == "rollback":
            self._go_back(run)
            raise GoBackError(why)
        run.unhealthy = why

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end_watch()
        module, run = module_and_run(pl_module)
        for name, check in self.checks.items():
            if isinstance(exception, NonFiniteLossError) and isinstance(check, NonFinite):
                action = self._possible(check.action, run)
                if trainer.is_global_zero:
                    said = f"NaN or infinity: {exception}"
                    self._say(name, check, action, Finding(math.nan, math.nan, said), module, run)
                if action == "rollback":
                    self._go_back(run)
                return

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end_watch()

    def state_dict(self) -> dict[str, Any]:
        return {
            "checks": {name: check.state() for name, check in self.checks.items()},
            "sums": self._sums(),
            "excerpts": dict(self._excerpts),
            "excerpts_round": self._excerpts_round,
            "vectors": {side: list(values.vectors) for side, values in self._singular.items()},
            "largest_at_start": dict(self._largest_at_start),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, state in state_dict["checks"].items():
            if name in self.checks:
                self.checks[name].load_state(state)
        self._stored = state_dict

    def _sums(self) -> dict[str, tuple[float, int]]:
        """What the next reading's means are of so far, over all ranks."""
        if self._interval is None:
            return {}
        self._interval.settle()
        names = list(self._interval.sums)
        if not names:
            return {}
        totals = torch.stack([total for total, _ in self._interval.sums.values()])
        average_([totals])
        counts = [count for _, count in self._interval.sums.values()]
        return dict(zip(names, zip(totals.tolist(), counts, strict=True), strict=True))

    def _look_at_data(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        """Some real images, the same ones for a seed: of a few classes as many each, where there are classes.

        Of those that training begins with: of data that is not in memory others may be far away.
        """
        rounds: Any = trainer.datamodule  # type: ignore[attr-defined]
        data = rounds.data
        generator = torch.Generator().manual_seed(derive_seed(run.seed, "epoch", 0))
        order = data.permutation(generator)
        if not data.in_memory:
            order = order[: _NEAR * self.num_images]
        labels = rounds.labels[order]
        classes = _some_classes(torch.bincount(labels).tolist())
        groups = [order[labels == label] for label in classes]
        each = min([self.num_images // max(1, len(classes)), *map(len, groups)])
        if not groups or each < 2:
            return
        images = data.batch(torch.cat([rows[:each] for rows in groups]))
        shown = to_float(images) if images.dtype == torch.uint8 else images
        if shown.ndim == 4:
            self._facts = {
                "health/lowest_pixel": shown.min().item(),
                "health/highest_pixel": shown.max().item(),
            }
        self._facts["num_classes"] = float(len(run.class_counts))
        self._shape = shown.shape[1:]
        self._real = distances(shown.to(module.device), len(groups))
        self._classes = classes

    def _begin(self, module: AdversarialModule, run: Run) -> None:
        """What later readings are compared with: as stored, or as it is now."""
        stored = self._stored
        self._excerpts = stored.get("excerpts") or {side: excerpt(module.trained(side)) for side in SIDES}
        self._excerpts_round = stored.get("excerpts_round", module.round)
        self._largest_at_start = dict(stored.get("largest_at_start", {}))
        generator = torch.Generator().manual_seed(derive_seed(run.seed, "singular vectors"))
        for side in SIDES:
            values = SingularValues(getattr(module.game, f"{side}_side"), generator)
            vectors = stored.get("vectors", {}).get(side)
            if vectors:
                values.vectors = [vector.to(module.device) for vector in vectors]
            else:
                largest = values.largest(steps=_STEPS_AT_START)
                if largest is not None and largest > 0:
                    self._largest_at_start[side] = largest.item()
            self._singular[side] = values

    def _keep_a_start(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        """So that there always is something to go back to."""
        folder = run.folder / "checkpoints"
        (there,) = Ranks.current().from_first(((folder / GOOD).exists() and module.images_seen > 0,))
        if there:
            return
        if module.images_seen == 0:
            trainer.save_checkpoint(folder / GOOD)
        elif trainer.is_global_zero:
            mark_as_good(folder)

    def _read(
        self, means: Mapping[str, float], module: AdversarialModule, run: Run
    ) -> tuple[Action, str] | None:
        """Takes a reading, says what the checks find in it, and returns what they ask for beside that."""
        measured = self._measure(module, run)
        clock = {"kimg": module.kimg, "rollbacks": float(run.rollbacks.count)}
        signals = {**clock, **means, **measured, **self._facts}
        if run.scored_at == module.images_seen:
            signals |= {f"scores/{name}": value for name, value in run.scores.items()}
        if self._clock.growing is not None:
            signals["health/size"] = self._clock.growing.size_at(module.images_seen)
        if run.overfitting[0] == module.images_seen:
            signals |= run.overfitting[1]
        run.beside |= measured | {name: means[name] for name in ("health/waiting",) if name in means}
        with self._lock:
            for name, check in self.checks.items():
                finding = check.look(signals)
                if finding is not None:
                    action = self._possible(check.action, run)
                    self._say(name, check, action, finding, module, run)
                    self._want(action, finding, module)
            wanted, self._wanted = self._wanted, []
        if self.rolls_back and not any(check.suspicious for check in self.checks.values()):
            self._mark_as_good(run)
        for action in ("stop", "rollback"):
            for asked in wanted:
                if asked[0] == action:
                    return asked
        return None

    def _measure(self, module: AdversarialModule, run: Run) -> dict[str, float]:
        """What is measured now, by one transfer from the device."""
        on_device: dict[str, Tensor] = {}
        if self._real is not None:
            on_device |= self._diversity(module, run, self._real)
        for side, values in self._singular.items():
            norm = values.largest()
            if norm is not None:
                on_device[f"health/{side}/spectral_norm"] = norm
        numbers = torch.stack([value.float() for value in on_device.values()]).tolist() if on_device else []
        measured = dict(zip(on_device, numbers, strict=True))
        for side, largest in self._largest_at_start.items():
            measured[f"health/{side}/spectral_growth"] = measured[f"health/{side}/spectral_norm"] / largest
        rounds = module.round - self._excerpts_round
        if rounds > 0:
            for side in SIDES:
                before, now = self._excerpts[side], excerpt(module.trained(side))
                if len(now):
                    measured[f"health/{side}/movement"] = movement(before, now) / rounds
                self._excerpts[side] = now
            self._excerpts_round = module.round
        return measured

    @torch.no_grad()
    def _diversity(self, module: AdversarialModule, run: Run, real: Tensor) -> dict[str, Tensor]:
        classes, each = real.shape[:2]
        labels = torch.tensor(self._classes, device=module.device).repeat_interleave(each)
        fakes = module.game.sample(Draws(run.seed, "health"), labels, module.ema.average)
        if fakes.shape[1:] != self._shape or len(fakes) != len(labels):  # a game of pairs, say
            return {}
        spread, doubles = diversity(distances(fakes, classes), real)
        return {"health/diversity": spread, "health/duplicates": doubles}

    def _possible(self, action: Action, run: Run) -> Action:
        """The action, or the end where a run went back too often."""
        return "stop" if action == "rollback" and run.rollbacks.count >= self.at_most_rollbacks else action

    def _go_back(self, run: Run) -> None:
        run.rollbacks = run.rollbacks.further(self.learning_rate_factor, run.seed if self.new_seed else None)
        run.goes_back = True

    def _mark_as_good(self, run: Run) -> None:
        folder = run.folder / "checkpoints"
        if (folder / LAST).exists():
            try:
                mark_as_good(folder)
            except OSError as error:
                log.warning("the last good checkpoint stays the one before: %s", error)

    def _say(
        self,
        name: str,
        check: Check,
        action: Action,
        finding: Finding,
        module: AdversarialModule,
        run: Run,
    ) -> None:
        event = {
            "images_seen": module.images_seen,
            "kimg": module.kimg,
            "check": name,
            "message": finding.message,
            "advice": check.advice,
            "action": action,
            "value": finding.value if math.isfinite(finding.value) else None,
            "threshold": finding.threshold if math.isfinite(finding.threshold) else None,
        }
        run.events.append(event)
        follows = {"warn": "", "stop": "; the run stops", "rollback": "; the run goes back"}[action]
        log.warning("%g kimg: %s%s. Try: %s", module.kimg, finding.message, follows, check.advice)
        _write(run.folder / "health.jsonl", run.events)
        run.loggers.alert(name, f"{finding.message}{follows}. Try: {check.advice}", module.images_seen)
        run.loggers.summary({"health/events": len(run.events), f"health/{name}": finding.message})

    def _want(self, action: Action, finding: Finding, module: AdversarialModule) -> None:
        if action != "warn":
            self._wanted.append((action, f"{finding.message} at {module.kimg:g} kimg"))

    def waited(
        self, check: DeadLoader, name: str, seconds: float, module: AdversarialModule, run: Run
    ) -> None:
        """What the thread says that looks while a batch is waited for; the run acts on it once the batch is there."""
        with self._lock:
            finding = check.look({"health/longest_wait_seconds": seconds})
            if finding is not None:
                self._say(name, check, check.action, finding, module, run)
                self._want(check.action, finding, module)

    def _end_watch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.end()
            self._watchdog = None


class _Clock:
    """Time between readings, without what other callbacks took, and the share of it that was spent waiting."""

    def __init__(self) -> None:
        self._first = True
        self.growing: Growing | None = None  # a network that becomes slower by itself
        self._since = self._paused = self._waited = 0.0
        self._images = 0

    def start(self, module: AdversarialModule, run: Run) -> None:
        self._first = True
        self.growing = next((each for each in module.game.modules() if isinstance(each, Growing)), None)
        self._note(module, run)

    def read(self, module: AdversarialModule, run: Run) -> dict[str, float]:
        longest, module.longest_wait_seconds = module.longest_wait_seconds, 0.0
        signals = {"health/longest_wait_seconds": longest}
        seconds = time.perf_counter() - self._since - (run.paused_seconds - self._paused)
        if seconds < _SECONDS:
            return signals
        if not self._first:  # which holds what is done once: workers start, kernels are chosen
            signals["health/waiting"] = (module.waited_seconds - self._waited) / seconds
            if self.growing is None:
                signals["health/images_per_second"] = (module.images_seen - self._images) / seconds
        self._first = False
        self._note(module, run)
        return signals

    def _note(self, module: AdversarialModule, run: Run) -> None:
        self._since, self._paused = time.perf_counter(), run.paused_seconds
        self._waited, self._images = module.waited_seconds, module.images_seen


class _Watchdog:
    """A thread that looks while the loop cannot: it stands still for as long as no batch comes."""

    def __init__(
        self, health: Health, checks: Mapping[str, DeadLoader], module: AdversarialModule, run: Run
    ) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(health, checks, module, run), daemon=True)
        self._thread.start()

    def _watch(
        self, health: Health, checks: Mapping[str, DeadLoader], module: AdversarialModule, run: Run
    ) -> None:
        while not self._ended.wait(min(1.0, min(check.threshold for check in checks.values()) / 4)):
            since = module.waiting_since
            for name, check in checks.items():
                seconds = 0.0 if since is None else time.perf_counter() - since
                if seconds > check.threshold:
                    health.waited(check, name, seconds, module, run)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def _some_classes(counts: Sequence[int]) -> list[int]:
    """A few of the classes, evenly spaced, that have two images at least."""
    there = [label for label, count in enumerate(counts) if count >= 2]
    few = min(len(there), _MOST_CLASSES)
    return [there[index * len(there) // few] for index in range(few)]


def _with_meaning(means: Mapping[str, float], module: AdversarialModule) -> dict[str, float]:
    """The means, without accuracies of losses for which the sign of a logit is no verdict."""
    if getattr(getattr(module.game, "loss", None), "undecided_at_zero", False):
        return dict(means)
    return {name: value for name, value in means.items() if "/accuracy_" not in name}


def _write(path: Path, events: list[dict[str, Any]]) -> None:
    """All events, a line each: a resumed run begins with those of its checkpoint."""
    if not events and not path.exists():
        return
    try:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(json.dumps(event) + "\n" for event in events))
        temporary.replace(path)
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)
