"""What a round costs on N ranks: a model, checked against 1 and 2 ranks here, and drawn out to what is not here.

    T(N, b) = k (t_D(b) + a(P_D, N)) + t_G(b) + a(P_G, N)        and at least  k b / (images/s of a rank's loader)
    a(P, N) = 2 (N - 1) λ + 2 (N - 1) / N · 4 P / β              a ring's all-reduce of P float32 gradients

k discriminator steps a round, b images a rank, t the time of a step on one rank, λ and β latency and bandwidth of the
slowest link. λ and β of gloo are measured by all-reduces of 4 kB to 16 MB, t by a run of one rank, and the prediction
is set beside a run of two ranks, each with as many images as the one had, and beside two runs of one rank at once,
which share the machine and send nothing; the three take turns.

Elsewhere t(b) is the larger of two: floating-point operations over what the device is assumed to reach, and the CPU's
work: operators of PyTorch times what it is assumed to take to launch one, and the latents, which each rank draws for
all. Operators are counted in one round of each recipe. A ring over
many machines is assumed to be as slow as their network, in 2 log2(N) latencies, as trees are.

python bench/scaling.py [--rounds 5] [--kimg 4] [--only-counts] [WORD ...]
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ganforge.runs import RunFolder
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run
from header import header
from loop import BASE, MODELS, run

RECIPES: dict[
    str, tuple[int, int, list[str]]
] = {  # with random images of the shape that the recipe's data have
    "dcgan_mnist": (32, 1, ["~data.resize"]),
    "sngan_cifar10": (32, 3, []),
}
BYTES = [2**k for k in range(12, 25, 2)]


@dataclass(frozen=True)
class Machine:
    """What is assumed of a place: see the module.

    Attributes:
        flops: reached in a round, 1/s; launch: s an operator; draw: s a normal number on one core, as measured here.
        latency: s; bandwidth: bytes/s of the link that a rank's gradients cross.
    """

    name: str
    ranks: int
    flops: float
    launch: float
    latency: float
    bandwidth: float
    draw: float = 3.1e-9


PLACES = [
    Machine("1 GPU", 1, 30e12, 6e-6, 0, math.inf),
    Machine("8 GPUs, one machine", 8, 30e12, 6e-6, 5e-6, 200e9),
    Machine("64 machines of 8, 25 GB/s each GPU", 512, 30e12, 6e-6, 20e-6, 25e9),
    Machine("64 machines of 8, 1.25 GB/s a machine", 512, 30e12, 6e-6, 50e-6, 1.25e9 / 8),
]


@dataclass(frozen=True)
class Round:
    """One round of a recipe, counted.

    Attributes:
        parameters: of discriminator and generator.
        steps: of the discriminator.
        images: that it sees.
        flops, operators: in all of it.
        numbers: random ones that its latents take.
    """

    parameters: tuple[int, int]
    steps: int
    images: int
    flops: int
    operators: int
    numbers: int

    def gradient_seconds(self, ranks: int, latency: float, bandwidth: float) -> float:
        """Σ a(P, N) over the round's steps."""
        if ranks == 1:
            return 0.0
        hops = 2 * (ranks - 1) if ranks <= 8 else 2 * math.log2(ranks)
        discriminator, generator = self.parameters
        sent = 4 * (self.steps * discriminator + generator)
        return (self.steps + 1) * hops * latency + 2 * (ranks - 1) / ranks * sent / bandwidth

    def seconds(self, place: Machine) -> float:
        # Every rank draws the latents of all on its CPU, which is what launches the operators too.
        cpu = self.operators * place.launch + place.ranks * self.numbers * place.draw
        return max(self.flops / place.flops, cpu) + self.gradient_seconds(
            place.ranks, place.latency, place.bandwidth
        )


class _Counter(TorchDispatchMode):
    """Counts operators and floating-point operations; PyTorch's own counter cannot stand a penalty's two passes."""

    operators = flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Count(Periodic):
    """Counts one round, and ends the run."""

    last: Count

    def __init__(self) -> None:
        super().__init__(every_kimg=0)
        Count.last = self

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return True

    def act(self, trainer: Any, module: AdversarialModule, run: Run) -> None:
        if module.round == 1:
            self.counter = _Counter()
            self.counter.__enter__()
            return
        self.counter.__exit__(None, None, None)
        sides = (module.game.discriminator_side, module.game.generator_side)
        sizes = [sum(p.numel() for p in side.parameters() if p.requires_grad) for side in sides]
        self.round = Round(
            (sizes[0], sizes[1]),
            module.discriminator_steps,
            module.images_per_round,
            self.counter.flops,
            self.counter.operators,
            (module.discriminator_steps + 1) * module.batch_size * module.game.latent_dim,
        )
        run.ended_because = "counted"


def count(words: Sequence[str]) -> Round:
    """A round of `ganforge train WORDS`."""
    with tempfile.TemporaryDirectory() as folder:
        callback = f"+callbacks.count={{_target_: {Count.__module__}.Count}}"
        run([*words, callback, "total_kimg=100000", "callbacks.log.every_kimg=100000"], Path(folder) / "run")
    return Count.last.round


def count_recipe(recipe: str, folder: Path) -> Round:
    size, channels, words = RECIPES[recipe]
    file = folder / f"{recipe}.npz"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (256, size, size, channels), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(256) % 10)
    return count([f"experiment={recipe}", "data=array", f"data.root={file}", *words])


def all_reduces(rank: int, port: int, results: Any) -> None:
    """Median seconds of an all-reduce of each size, by rank 0 into `results`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for size in BYTES:
        flat, times = torch.zeros(size // 4), []
        for _ in range(30):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(flat)
            times.append(time.perf_counter() - start)
        if rank == 0:
            results[size] = statistics.median(times)
    dist.destroy_process_group()


def link() -> tuple[float, float]:
    """λ in s and β in bytes/s of gloo between two processes here, fitted to the relative errors of all sizes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(all_reduces, (port, results), nprocs=2)
        taken = dict(results)
    sizes, seconds = np.array(list(taken)), np.array(list(taken.values()))
    columns = np.stack([2 * np.ones(len(sizes)), sizes], axis=1) / seconds[:, None]
    (latency, per_byte), *_ = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)
    return max(float(latency), 0.0), 1 / max(float(per_byte), 1e-15)


def measured(words: Sequence[str], ranks: int, kimg: float) -> float:
    """Seconds a round of `ganforge train` on so many ranks: the median over its log lines but the first."""
    with tempfile.TemporaryDirectory() as folder:
        batch = 64 * ranks
        asked = [
            *(word for word in BASE if word != "trainer=cpu"),
            *words,
            "trainer=ddp",
            "trainer.accelerator=cpu",
            f"trainer.devices={ranks}",
            f"batch_size={batch}",
            f"total_kimg={kimg * ranks}",
            f"callbacks.log.every_kimg={kimg * ranks / 8}",
            f"hydra.run.dir={folder}/run",
        ]
        command = [sys.executable, "-m", "ganforge", "train", *asked]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        speeds = RunFolder(Path(folder) / "run").curves["train/images_per_second"].values
    return batch / statistics.median(speeds[1:])


def apart(words: Sequence[str], kimg: float) -> float:
    """Seconds a round of two runs of one rank at once, which share the machine and send nothing: their mean."""
    with ThreadPoolExecutor(2) as threads:
        return statistics.mean(threads.map(lambda _: measured(words, 1, kimg), range(2)))


def check(models: Sequence[str], rounds: int, kimg: float) -> None:
    latency, bandwidth = link()
    print(f"gloo between two processes here: λ = {1e6 * latency:.0f} µs, β = {bandwidth / 1e9:.2f} GB/s\n")
    print(
        "| model | one rank, ms | two runs of one at once | gradients | two ranks: predicted | measured | "
        "measured / predicted |\n|---|---|---|---|---|---|---|"
    )
    for model in models:
        counted = count([*MODELS[model]])
        words = MODELS[model]
        turns = [
            (measured(words, 1, kimg), apart(words, kimg), measured(words, 2, kimg)) for _ in range(rounds)
        ]
        one, beside, two = (statistics.median(times) for times in zip(*turns, strict=True))
        shared = counted.gradient_seconds(2, latency, bandwidth)
        ratio = statistics.median(b / (a + shared) for a, _, b in turns)
        row = [1000 * one, 1000 * beside, 1000 * shared, 1000 * (one + shared), 1000 * two]
        print(f"| {model} | " + " | ".join(f"{x:.1f}" for x in row) + f" | {ratio:.2f} |", flush=True)


def extrapolate() -> None:
    print(
        "\nnot measured: images/s, and the share that gradients take of a round, under the assumptions below\n"
    )
    print("| recipe | batch a GPU | parameters, D and G | GFLOP a round | operators | limited by |", end="")
    print(
        "".join(f" {place.name} |" for place in PLACES) + "\n|---|---|---|---|---|---|" + "---|" * len(PLACES)
    )
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            counted = count_recipe(recipe, Path(folder))
            place = PLACES[0]
            launches = counted.seconds(place) > counted.flops / place.flops
            cells = []
            for place in PLACES:
                seconds = counted.seconds(place)
                shared = counted.gradient_seconds(place.ranks, place.latency, place.bandwidth)
                cells.append(f"{place.ranks * counted.images / seconds:,.0f} ({shared / seconds:.0%})")
            print(
                f"| {recipe} | {counted.images // counted.steps} | "
                f"{counted.parameters[0] / 1e6:.2f} M, {counted.parameters[1] / 1e6:.2f} M | "
                f"{counted.flops / 1e9:.0f} | {counted.operators} | {'launches' if launches else 'FLOP'} | "
                + " | ".join(cells)
                + " |"
            )
    place = PLACES[0]
    print(
        f"\nassumed: {place.flops / 1e12:.0f} TFLOP/s reached and {1e6 * place.launch:.0f} µs an operator, "
        f"{1e9 * place.draw:.1f} ns a normal number; "
        + "; ".join(
            f"{p.name}: λ = {1e6 * p.latency:.0f} µs, β = {p.bandwidth / 1e9:.2f} GB/s a GPU"
            for p in PLACES[1:]
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mlp_8", "dcgan_8", "dcgan_32"])
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs of one and two ranks")
    parser.add_argument("--kimg", type=float, default=4, help="length of a run, for each rank")
    parser.add_argument("--only-counts", action="store_true", help="no measurement, which takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{header(seed=0)} One thread and 64 images a rank.\n")
    if not arguments.only_counts:
        check(arguments.models, arguments.rounds, arguments.kimg)
    extrapolate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
