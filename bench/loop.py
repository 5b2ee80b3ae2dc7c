"""Images/s of `ganforge train` beside a lean loop written by hand, with the same networks, data, loss and optimizers.

Both play in one process and one thread, window by window in turn, and what counts is the time that the processor
works for them: whatever else the machine does meets both. The lean loop has what a round cannot do without: no graph
through the generator in the discriminator's step, the discriminator frozen in the generator's, the moving average in
one call; no logging, clock, seeds, checks or checkpoints. ganforge trains with its default callbacks and logger=csv;
pictures and checkpoints come at the end, as their period is a choice.

At the end 10,000 rounds of the smallest network show whether memory grows. Where there is a GPU both play on it, by
the clock on the wall, and the most memory that ganforge takes is said as well.

python bench/loop.py [--models mlp_8 dcgan_8 dcgan_32 sngan_32] [--windows 15] [--seconds 0.5] [--rounds 10000]
                     [WORD ...]
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from ganforge.commands import resolvers, schema
from ganforge.commands.options import config_folder
from ganforge.commands.shorthands import expand
from ganforge.commands.train import train
from ganforge.games.synthesis import Synthesis
from ganforge.images import to_float
from ganforge.training.callbacks.periodic import Periodic
from ganforge.training.module import AdversarialModule
from ganforge.training.run import Run
from header import header

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MODELS = {
    "mlp_8": ["model=mlp"],
    "dcgan_8": ["model=dcgan"],
    "dcgan_32": ["model=dcgan", "data.image_size=32"],
    "sngan_32": [
        "model=sngan",
        "data.image_size=32",
        "model.generator.width=32",
        "model.discriminator.width=32",
    ],
}
BASE = [
    f"trainer={'default' if DEVICE.type == 'cuda' else 'cpu'}",
    "logger=csv",
    "metrics=none",
    "callbacks.log.progress=false",
    "callbacks.samples.every_kimg=0",
    "callbacks.samples.rows=1",
    "callbacks.samples.animation=null",
    "callbacks.checkpoint.every_kimg=0",
]
BARS = {"mlp_8": 0.90, "dcgan_8": 0.90, "dcgan_32": 0.97, "sngan_32": 0.97}


def clock() -> float:
    """Seconds: of the processor's work for this process, or on the wall once the GPU has done all it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class LeanLoop:
    """The same game without any of the platform, on copies of its networks."""

    def __init__(self, module: AdversarialModule, data: Any) -> None:
        assert isinstance(module.game, Synthesis)
        game = copy.deepcopy(module.game)
        game = game.to(DEVICE, memory_format=torch.contiguous_format)  # whatever is set for ours
        self.generator, self.discriminator, self.loss = (
            game.generator_side,
            game.discriminator_side,
            game.loss,
        )
        self.latent_dim, self.batch_size = game.latent_dim, module.batch_size
        self.average = copy.deepcopy(self.generator)
        self.averaged = [*(p.detach() for p in self.average.parameters()), *_floats(self.average)]
        self.followed = [*(p.detach() for p in self.generator.parameters()), *_floats(self.generator)]
        optimizers = [module.players[side].optimizer for side in ("discriminator", "generator")]
        self.d_optimizer = optimizers[0](self.discriminator.parameters())
        self.g_optimizer = optimizers[1](self.generator.parameters())
        self.images, self.labels = data.batch(torch.arange(len(data))).to(DEVICE), data.labels.to(DEVICE)
        self.pending = torch.randperm(len(data))

    @torch.autocast(DEVICE.type, enabled=False)
    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self.round()

    def noise(self) -> torch.Tensor:
        return torch.randn(self.batch_size, self.latent_dim, device=DEVICE)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.pending) < self.batch_size:
            self.pending = torch.cat([self.pending, torch.randperm(len(self.images))])
        chosen, self.pending = self.pending[: self.batch_size], self.pending[self.batch_size :]
        chosen = chosen.to(DEVICE)
        return to_float(self.images[chosen]), self.labels[chosen]

    def round(self) -> None:
        real, labels = self.batch()
        with torch.no_grad():
            fake = self.generator(self.noise(), labels)
        loss = self.loss.discriminator_loss(
            self.discriminator(real, labels), self.discriminator(fake, labels)
        )
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()

        self.discriminator.requires_grad_(False)
        fake = self.generator(self.noise(), labels)
        loss = self.loss.generator_loss(None, self.discriminator(fake, labels))
        self.g_optimizer.zero_grad()
        loss.backward()
        self.g_optimizer.step()
        self.discriminator.requires_grad_(True)
        torch._foreach_lerp_(self.averaged, self.followed, 0.01)


def _floats(module: torch.nn.Module) -> list[torch.Tensor]:
    return [b for b in module.buffers() if b.is_floating_point()]


class InTurn(Periodic):
    """Comes after ganforge's callbacks: after each window of theirs plays one of another loop's.

    Attributes:
        rival: the other loop: made of the module and the data, and played for a number of rounds.
        times: seconds a round, (ganforge, the other) for each pair of windows.
    """

    last: InTurn
    rival: type[Any] = LeanLoop

    def __init__(self, windows: int, seconds: float) -> None:
        super().__init__(every_kimg=0)
        self.windows, self.seconds = windows, seconds
        self.times: list[tuple[float, float]] = []
        self.start = 0.0
        InTurn.last = self

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.other = self.rival(pl_module, trainer.datamodule.data)
        self.other.play(2)
        start = clock()
        self.other.play(2)
        self.window = max(4, round(2 * self.seconds / (clock() - start)))
        self.images = pl_module.images_per_round

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return module.round % self.window == 0

    def act(self, trainer: Any, module: AdversarialModule, run: Run) -> None:
        now = clock()
        self.other.play(self.window)
        if self.start:  # the first window is there to warm up
            self.times.append(((now - self.start) / self.window, (clock() - now) / self.window))
        if len(self.times) == self.windows:
            run.ended_because = "measured"
        self.start = clock()


class Memory(Periodic):
    """Notes the process's memory, in MB, each 1,000 rounds; and the GPU's where there is one."""

    last: Memory

    def __init__(self) -> None:
        super().__init__(every_kimg=0)
        self.megabytes: list[float] = []
        Memory.last = self

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return module.round % 1000 == 0

    def act(self, trainer: Any, module: AdversarialModule, run: Run) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        on_device = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else 0
        self.megabytes.append((pages * resource.getpagesize() + on_device) / 2**20)


def run(words: Sequence[str], folder: Path) -> None:
    """`ganforge train WORDS` in this process."""
    schema.register()
    resolvers.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", expand("train", [*BASE, *words]), return_hydra_config=True)
        with open_dict(config):
            config.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(config)
            del config["hydra"]
        train(config)


def compare(
    words: Sequence[str], windows: int, seconds: float, rival: type[Any] = LeanLoop
) -> tuple[float, float, float]:
    """Images/s of ganforge and of the other loop, and the median of their ratio over the pairs of windows."""
    sys.modules[InTurn.__module__].InTurn.rival = rival  # type: ignore[attr-defined]
    callback = (
        f"+callbacks.in_turn={{_target_: {InTurn.__module__}.InTurn, windows: {windows}, seconds: {seconds}}}"
    )
    with tempfile.TemporaryDirectory() as folder:
        run([*words, callback, "total_kimg=100000", "callbacks.log.every_kimg=1"], Path(folder) / "run")
    measured = InTurn.last
    ours, lean = zip(*measured.times, strict=True)
    ratio = statistics.median(b / a for a, b in measured.times)
    return measured.images / statistics.median(ours), measured.images / statistics.median(lean), ratio


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--windows", type=int, default=15, help="pairs of windows for each model")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a window")
    parser.add_argument("--rounds", type=int, default=10_000, help="rounds over which memory is watched")
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    print(header(seed=0))
    print("The ratio's bar in brackets.\n")
    print("| model | ganforge, img/s | lean loop, img/s | ratio |\n|---|---|---|---|")
    for model in arguments.models:
        ours, lean, ratio = compare([*MODELS[model], *words], arguments.windows, arguments.seconds)
        print(f"| {model} | {ours:,.0f} | {lean:,.0f} | {ratio:.3f} ({BARS[model]:.2f}) |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        callback = f"+callbacks.memory={{_target_: {Memory.__module__}.Memory}}"
        images = f"total_kimg={arguments.rounds * 16 / 1000}"
        run([*MODELS["mlp_8"], *words, callback, images, "batch_size=16"], Path(folder) / "run")
    megabytes = Memory.last.megabytes
    print(
        f"\nMemory each 1,000 rounds of mlp_8 with batch 16, MB: {' '.join(f'{each:.1f}' for each in megabytes)}"
    )
    if DEVICE.type == "cuda":
        print(f"\nThe most memory on the GPU: {torch.cuda.max_memory_allocated() / 2**20:,.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
