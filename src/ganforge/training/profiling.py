"""Where a round's time, memory and arithmetic go: measured from outside, so that training itself pays nothing.

The parts of a run are wrapped once a profile is wanted, and a round is cut at the wrappers' edges: what lies between
two edges belongs to the innermost phase, so the phases of a round add up to the round.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from ganforge.training.callbacks.log import Log
from ganforge.training.callbacks.periodic import Periodic, module_and_run
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run

REST = "everything else"
WAIT = "data: waiting for the next batch"
_PREPARE = "data: to the device, scaling, flips"
_PENALTIES = "discriminator: penalties, forward"
_OURS = ("data: ", "discriminator: ", "generator: ", "logging: ", "moving average")
_SECONDS = 10.0  # timed rounds go on for about so long
_FEWEST, _MOST = 8, 200
_TRACED = 2
_LONG_SECONDS = 60.0

Mark = tuple[str, Any]
"""The phase that ends here, and what was read off the clock."""

Kind = tuple[Any, ...]
"""Which penalties are due in a round, and whether gradient norms are measured."""


class Phases:
    """The stretches of a round, nested: what is read between two edges belongs to the innermost.

    Attributes:
        read: gives the clock's reading at an edge: a time, a CUDA event, a count.
        marks: the edges since the last `cut`, each with the phase that ended there.
        traced: whether each stretch is shown in torch.profiler's trace.
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read
        self.traced = False
        self.marks: list[Mark] = []
        self._stack = [REST]
        self._shown: list[Any] = []

    def enter(self, name: str) -> None:
        if _PENALTIES in self._stack:  # their passes through the discriminator are theirs
            name = _PENALTIES
        self.marks.append((self._stack[-1], self.read()))
        self._stack.append(name)
        if self.traced:
            shown: Any = record_function(name)
            shown.__enter__()
            self._shown.append(shown)

    def leave(self) -> None:
        if self._shown:
            self._shown.pop().__exit__(None, None, None)
        self.marks.append((self._stack.pop(), self.read()))

    def inside(self, word: str) -> bool:
        return any(name.startswith(word) for name in self._stack)

    def cut(self) -> list[Mark]:
        """The marks of the round that ends here."""
        marks, self.marks = [*self.marks, (self._stack[-1], self.read())], []
        return marks

    def start(self) -> None:
        """The next round starts here."""
        self.marks = [(REST, self.read())]

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a stretch of this name."""

        def stretch(*arguments: Any, **keywords: Any) -> Any:
            self.enter(name)
            try:
                return function(*arguments, **keywords)
            finally:
                self.leave()

        return stretch


class Profiler(Periodic):
    """Comes after every other callback; plays a few rounds, measures, writes `out`/profile.json and ends the run.

    First come rounds to warm up, then the timed ones, one in which operations are counted, and two in
    torch.profiler's trace, `out`/trace.json. Periodic callbacks do not act meanwhile; at the end each is timed alone.

    Args:
        out: the folder of what is written.
        warmup: rounds before the first timed one.
        rounds: timed rounds; None for about ten seconds of them, in whole periods of what is not due in each.
        memory_only: plays `warmup` rounds and measures the peak memory only.
    """

    def __init__(
        self, out: str, warmup: int = 3, rounds: int | None = None, memory_only: bool = False
    ) -> None:
        super().__init__(every_kimg=0)
        self.out = Path(out)
        self.warmup = warmup
        self.rounds = rounds
        self.memory_only = memory_only
        self.phases = Phases(time.perf_counter)
        self._timed: list[tuple[Kind, list[Mark]]] = []
        self._steps: dict[str, int] = dict.fromkeys(("discriminator", "generator"), 0)
        self._flops: dict[Kind, dict[str, float]] = {}
        self._played = 0
        self._finished = False
        self._trace: Any = None
        self._traced_from = sys.maxsize
        self._silence = contextlib.ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module, run = module_and_run(pl_module)
        run.total_images = sys.maxsize
        others = [c for c in _others(trainer) if isinstance(c, Periodic)]
        for callback in others:
            callback.at_start = False
            vars(callback)["due"] = _never
            if isinstance(callback, Log):
                callback.progress = False
        module.interruptions = [callback.due for callback in (*others, self)]
        vars(module)["play_round"] = self._around_rounds(module, module.play_round)
        if self.memory_only:
            return
        attach(self.phases, module)
        loader: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader.train_dataloader = _waited_for(self.phases, loader.train_dataloader)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, _ = module_and_run(pl_module)
        for side, optimizer in zip(module.players, trainer.optimizers, strict=True):
            _count_and_time(self.phases, self._steps, side, optimizer)
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
            self.phases.read = _event
        self.phases.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._silence.close()

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return self._finished

    def act(self, trainer: Trainer, module: AdversarialModule, run: Run) -> None:
        result = {"memory": self._peaks(module)} if self.memory_only else self._result(trainer, module, run)
        (self.out / "profile.json").write_text(json.dumps(result, indent=2) + "\n")
        run.ended_because = "measured"

    def _around_rounds(
        self, module: AdversarialModule, play: Callable[[Mapping[str, Tensor]], None]
    ) -> Callable[[Mapping[str, Tensor]], None]:
        def round_(batch: Mapping[str, Tensor]) -> None:
            kind = _kind(module, module.round)
            if self._counts(kind):
                self._flops[kind[:1]] = self._count_operations(module, play, batch)
            else:
                play(batch)
            marks = self.phases.cut()
            self._played += 1
            self._after_round(module, kind, marks)
            self.phases.start()

        return round_

    @property
    def _last_timed(self) -> int:
        return self.warmup + (self.rounds if self.rounds is not None else sys.maxsize)

    def _counts(self, kind: Kind) -> bool:
        """Whether the coming round is one to count operations in: after the timed ones, once for each kind."""
        return not self.memory_only and self._played >= self._last_timed and kind[:1] not in self._flops

    def _after_round(self, module: AdversarialModule, kind: Kind, marks: list[Mark]) -> None:
        played = self._played
        if self.memory_only:
            self._finished = played >= self.warmup
        elif played <= self.warmup:
            if played == self.warmup:
                period = math.lcm(*_periods(module), module.gradient_norm_every)
                self.rounds = self.rounds or _enough(_seconds(marks), period)
                self._steps.update(dict.fromkeys(self._steps, 0))
        elif played <= self._last_timed:
            self._timed.append((kind, marks))
            if played == self._last_timed:
                self._steps = {side: count // len(self._timed) for side, count in self._steps.items()}
        elif self._trace is None:
            kinds = {kind[:1] for kind, _ in self._timed}
            fullest = max(kinds, key=lambda kind: sum(kind[0]))  # with a lazy penalty, to see its memory
            if kinds <= self._flops.keys() and _kind(module, module.round)[:1] == fullest:
                self._start_trace(module)
                self._traced_from = played
        elif played == self._traced_from + _TRACED:
            self._stop_trace()
            self._finished = True

    def _count_operations(
        self,
        module: AdversarialModule,
        play: Callable[[Mapping[str, Tensor]], None],
        batch: Mapping[str, Tensor],
    ) -> dict[str, float]:
        """A round under PyTorch's counter, in which compiled networks are called as they were written."""
        compiled = getattr(module.game, "_compiled", {})
        kept = dict(compiled)
        compiled.clear()
        read = self.phases.read
        counter: Any = FlopCounterMode(display=False)
        counter.mod_tracker = _NoModules()
        with counter:
            self.phases.read = counter.get_total_flops
            self.phases.start()
            play(batch)
            marks = self.phases.cut()
        self.phases.read = read
        compiled.update(kept)
        counted: dict[str, float] = defaultdict(float)
        for phase, before, after in _stretches(marks):
            counted[phase] += after - before
        return dict(counted)

    def _start_trace(self, module: AdversarialModule) -> None:
        activities = [ProfilerActivity.CPU]
        if module.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._trace = profile(activities=activities, profile_memory=True)
        self._silence.enter_context(_silent_stderr())
        self._trace.__enter__()
        self.phases.traced = True

    def _stop_trace(self) -> None:
        self.phases.traced = False
        self._trace.__exit__(None, None, None)
        self._silence.close()
        self._trace.export_chrome_trace(str(self.out / "trace.json"))

    def _peaks(self, module: AdversarialModule) -> dict[str, float]:
        """Bytes: of the process, and of the device where it has its own."""
        peaks = {"process_peak_bytes": float(peak_of_process())}
        if module.device.type == "cuda":
            peaks["device_peak_bytes"] = float(torch.cuda.max_memory_reserved(module.device))
        return peaks

    def _result(self, trainer: Trainer, module: AdversarialModule, run: Run) -> dict[str, Any]:
        peaks = self._peaks(module)
        timed = [(kind, _by_phase(marks)) for kind, marks in self._timed]
        phases, flops = _typical(timed), self._average_flops(module)
        held = held_bytes(module, trainer.optimizers)
        memory = _peaks_by_phase(self.out / "trace.json", sum(held.values()) - held["gradients"])
        periodic = [_cost(c, trainer, module, run) for c in _others(trainer) if isinstance(c, Periodic)]
        return {
            "device": module.device.type,
            "precision": str(trainer.precision),
            "images_per_round": module.images_per_round,
            "rounds": {"warmup": self.warmup, "timed": len(timed)},
            "round_seconds": sum(phases.values()),
            "median_round_seconds": statistics.median(sum(each.values()) for _, each in timed),
            "phases": [
                {
                    "phase": phase,
                    "seconds": phases[phase],
                    "flops": flops.get(phase, 0),
                    "peak_bytes": memory.get(phase),
                }
                for phase in sorted(phases, key=_place)
            ],
            "periodic": periodic,
            "flops": sum(flops.values()),
            "optimizer_steps": self._steps,
            "memory": {**peaks, "held_bytes": held},
        }

    def _average_flops(self, module: AdversarialModule) -> dict[str, float]:
        """Operations of a round by phase, in the mean over rounds with this and that penalty due."""
        total: dict[str, float] = defaultdict(float)
        period = math.lcm(*_periods(module))
        for round_ in range(period):
            for phase, count in self._flops.get(_kind(module, round_)[:1], {}).items():
                total[phase] += count / period
        return dict(total)


class _NoModules:
    """Stands for the counter's tracker of modules, whose hooks fail where a penalty takes the gradient of an input."""

    parents = ("Global",)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def attach(phases: Phases, module: AdversarialModule) -> None:
    """Wraps the parts of a built module. Its own code stays as it is."""
    game, meter, ema = module.game, module.meter, module.ema

    def wrap(owner: Any, method: str, name: str) -> None:
        setattr(owner, method, phases.around(name, getattr(owner, method)))

    wrap(module, "_micro_batches", _PREPARE)
    wrap(game, "discriminator_terms", "discriminator: draws and loss")
    wrap(game, "generator_terms", "generator: draws and loss")
    wrap(game, "after_discriminator_step", "discriminator: constraints on weights")
    wrap(meter, "add", "logging: keeping the terms")
    wrap(ema, "update", "moving average")
    for method, name in (("_backward", "backward"), ("_bound_gradient", "gradient norm, clipping")):
        setattr(module, method, _by_side(phases, name, getattr(module, method)))
    update = module._update

    def sided(side: str, *arguments: Any) -> None:
        phases.enter(f"{side}: loop around the step")
        try:
            update(side, *arguments)
        finally:
            phases.leave()

    vars(module)["_update"] = sided
    for penalty in getattr(game, "penalties", {}).values():
        penalty.forward = phases.around(_PENALTIES, penalty.forward)
    compiled: dict[str, Any] = getattr(game, "_compiled", {})
    for name, function in compiled.items():
        compiled[name] = _by_side(phases, f"through the {name}", function)
    for name, side in (("generator", game.generator_side), ("discriminator", game.discriminator_side)):
        networks: Iterable[nn.Module] = side.values() if isinstance(side, nn.ModuleDict) else [side]
        for network in networks:
            _hook(phases, network, f"through the {name}")
            for layer in network.modules():
                # A hook inside a compiled network would cut its graph.
                if isinstance(layer, _SpectralNorm) and not compiled:
                    _hook(phases, layer, "spectral norm")


def _hook(phases: Phases, network: nn.Module, name: str) -> None:
    def before(*_: Any) -> None:
        phases.enter(f"{_side(phases)}: {name}")

    network.register_forward_pre_hook(before)
    network.register_forward_hook(lambda *_: phases.leave(), always_call=True)


def _by_side(phases: Phases, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def stretch(*arguments: Any, **keywords: Any) -> Any:
        return phases.around(f"{_side(phases)}: {name}", function)(*arguments, **keywords)

    return stretch


def _side(phases: Phases) -> str:
    return "generator" if phases.inside("generator:") else "discriminator"


def _waited_for(phases: Phases, loader: Callable[[], Iterable[Any]]) -> Callable[[], Iterable[Any]]:
    class Waited:
        def __iter__(self) -> Iterator[Any]:
            batches = iter(loader())
            while True:
                phases.enter(WAIT)
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    phases.leave()
                yield batch

    return Waited


def _count_and_time(phases: Phases, steps: dict[str, int], side: str, optimizer: Any) -> None:
    def before(*_: Any) -> None:
        steps[side] += 1
        phases.enter(f"{side}: optimizer step")

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda *_: phases.leave())


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Without the notes that PyTorch's tracer writes there from its own code, of what it has not seen made and such."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _others(trainer: Trainer) -> list[Any]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if not isinstance(callback, Profiler)]


def _place(phase: str) -> int:
    """Where a phase stands in a table: what belongs together side by side, in the order of a round."""
    return next(i for i, start in enumerate((*_OURS, REST)) if phase.startswith(start))


def _never(*_: Any) -> bool:
    return False


def _event() -> Any:
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _stretches(marks: list[Mark]) -> Iterator[tuple[str, Any, Any]]:
    """(phase, reading at its start, reading at its end) of each stretch between two neighbouring edges."""
    for (_, before), (phase, after) in itertools.pairwise(marks):
        yield phase, before, after


def _difference(before: Any, after: Any) -> float:
    """Seconds between two readings of a clock."""
    if isinstance(before, float):
        return float(after - before)
    return float(before.elapsed_time(after)) / 1000


def _seconds(marks: list[Mark]) -> float:
    first, last = marks[0][1], marks[-1][1]
    if not isinstance(first, float):
        torch.cuda.synchronize()
    return _difference(first, last)


def _by_phase(marks: list[Mark]) -> dict[str, float]:
    """Seconds of each phase of one round."""
    if not isinstance(marks[-1][1], float):
        marks[-1][1].synchronize()
    seconds: dict[str, float] = defaultdict(float)
    for phase, before, after in _stretches(marks):
        seconds[phase] += _difference(before, after)
    return dict(seconds)


def _periods(module: AdversarialModule) -> list[int]:
    """Rounds between two times that a penalty is due, for each."""
    return [penalty.every for penalty in getattr(module.game, "penalties", {}).values()]


def _kind(module: AdversarialModule, round_: int) -> Kind:
    """What sets a round apart from others: the penalties due in it, and whether gradient norms are."""
    due = tuple(round_ % every == 0 for every in _periods(module))
    return due, round_ % module.gradient_norm_every == 0


def _enough(round_seconds: float, period: int) -> int:
    wanted = min(max(_SECONDS / max(round_seconds, 1e-6), _FEWEST), _MOST)
    return math.ceil(wanted / period) * period


def _typical(rounds: list[tuple[Kind, dict[str, float]]]) -> dict[str, float]:
    """Seconds of each phase in a typical round: medians over rounds of one kind, weighted by how often each kind comes.

    A penalty that is due each 16th round is missing from the median of all rounds, and present in this.
    """
    kinds: dict[Kind, list[dict[str, float]]] = defaultdict(list)
    for kind, each in rounds:
        kinds[kind].append(each)
    typical: dict[str, float] = defaultdict(float)
    for same in kinds.values():
        for phase in {phase: None for each in same for phase in each}:
            median = statistics.median(each.get(phase, 0.0) for each in same)
            typical[phase] += median * len(same) / len(rounds)
    return dict(typical)


def held_bytes(module: AdversarialModule, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, int]:
    """What stays in memory between rounds."""

    def size(tensors: Iterable[Tensor]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    game = module.game
    states = (state.values() for o in optimizers for state in o.state.values())
    return {
        "networks": size([*game.parameters(), *game.buffers()]),
        "moving_average": size([*module.ema.parameters(), *module.ema.buffers()]),
        "gradients": size(p.grad for p in game.parameters() if p.grad is not None),
        "optimizers": size(value for values in states for value in values if isinstance(value, Tensor)),
    }


def _peaks_by_phase(trace: Path, before: int) -> dict[str, float]:
    """The most bytes of tensors held during each phase of the traced rounds, from the trace's allocations.

    Args:
        before: what the CPU holds all along, which the trace cannot know; gradients it has seen made.
    """
    events = json.loads(trace.read_text())["traceEvents"]
    edges: list[tuple[float, int, Any]] = []
    for event in events:
        if event.get("cat") == "user_annotation" and event["name"].startswith(_OURS):
            edges.append((event["ts"], 1, event["name"]))
            edges.append((event["ts"] + event["dur"], 0, event["name"]))
    changes = [(event["ts"], 2, event["args"]) for event in events if event["name"] == "[memory]"]
    on_device = any(arguments["Device Type"] for _, _, arguments in changes)
    held = float(before)
    peaks: dict[str, float] = {}
    stack = [REST]
    for _, kind, what in sorted(edges + changes, key=lambda each: each[:2]):
        if kind == 1:
            stack.append(what)
        elif kind == 0:
            with contextlib.suppress(ValueError):
                stack.remove(what)
        elif on_device and what["Device Type"]:
            held = what["Total Allocated"]
        elif not on_device:
            held += what["Bytes"]
        peaks[stack[-1]] = max(peaks.get(stack[-1], 0.0), held)
    return peaks


def _cost(callback: Periodic, trainer: Trainer, module: AdversarialModule, run: Run) -> dict[str, Any]:
    """What one act of a periodic callback takes, and what that is for each thousand images.

    The second act counts, which finds read and built what the first one does; the first where it took a minute.
    """
    first = seconds = _act_seconds(callback, trainer, module, run)
    if first < _LONG_SECONDS:
        seconds = _act_seconds(callback, trainer, module, run)
    every = callback.every_kimg
    return {
        "name": type(callback).__name__.lower(),
        "first_seconds": first,
        "seconds": seconds,
        "every_kimg": every,
        "seconds_per_kimg": seconds / every if every else None,
    }


def _act_seconds(callback: Periodic, trainer: Trainer, module: AdversarialModule, run: Run) -> float:
    synchronize(module.device)
    start = time.perf_counter()
    callback.act(trainer, module, run)
    synchronize(module.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_of_process() -> int:
    """The most memory that this process ever had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def matmul_flops(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of the largest products: what the device can do at most in this precision.

    A product of two n x n matrices has 2n³ of them; the best of several products counts.
    """
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device).to(dtype)
    b, out = a.clone(), torch.empty_like(a)
    best, until, tries = math.inf, time.perf_counter() + seconds, 0
    while tries < 5 or time.perf_counter() < until:
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        synchronize(device)
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return 2 * n**3 / best
