"""Images/s of `ganforge train` beside a lean loop written by hand, with the same networks, data, loss and optimizers.

Both play in one process and one thread, window by window in turn, and what counts is the time that the processor
works for them: whatever else the machine does meets both. The lean loop
has what a round cannot do without: no graph through the generator in the discriminator's step, the discriminator
frozen in the generator's, the moving average in one call; no logging, clock, seeds, checks or checkpoints. ganforge
trains with its default callbacks and logger=csv; pictures and checkpoints come at the end, as their period is a choice.

At the end 2,000 rounds of the smallest network show whether memory grows.

python bench/loop.py [--models mlp_8 dcgan_8 dcgan_32 sngan_32] [--windows 15] [--seconds 0.5] [WORD ...]
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
    "trainer=cpu",
    "logger=csv",
    "metrics=none",
    "callbacks.log.progress=false",
    "callbacks.samples.every_kimg=0",
    "callbacks.samples.rows=1",
    "callbacks.samples.animation=null",
    "callbacks.checkpoint.every_kimg=0",
]
BARS = {"mlp_8": 0.90, "dcgan_8": 0.90, "dcgan_32": 0.97, "sngan_32": 0.97}


class LeanLoop:
    """The same game without any of the platform, on copies of its networks."""

    def __init__(self, module: AdversarialModule, data: Any) -> None:
        assert isinstance(module.game, Synthesis)
        game = copy.deepcopy(module.game).to(
            memory_format=torch.contiguous_format
        )  # whatever is set for ours
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
        self.images, self.labels = data.batch(torch.arange(len(data))), data.labels
        self.pending = torch.randperm(len(data))

    @torch.autocast("cpu", enabled=False)
    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self.round()

    def round(self) -> None:
        if len(self.pending) < self.batch_size:
            self.pending = torch.cat([self.pending, torch.randperm(len(self.images))])
        chosen, self.pending = self.pending[: self.batch_size], self.pending[self.batch_size :]
        real, labels = to_float(self.images[chosen]), self.labels[chosen]
        with torch.no_grad():
            fake = self.generator(torch.randn(self.batch_size, self.latent_dim), labels)
        loss = self.loss.discriminator_loss(
            self.discriminator(real, labels), self.discriminator(fake, labels)
        )
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()

        self.discriminator.requires_grad_(False)
        fake = self.generator(torch.randn(self.batch_size, self.latent_dim), labels)
        loss = self.loss.generator_loss(None, self.discriminator(fake, labels))
        self.g_optimizer.zero_grad()
        loss.backward()
        self.g_optimizer.step()
        self.discriminator.requires_grad_(True)
        torch._foreach_lerp_(self.averaged, self.followed, 0.01)


def _floats(module: torch.nn.Module) -> list[torch.Tensor]:
    return [b for b in module.buffers() if b.is_floating_point()]


class InTurn(Periodic):
    """Comes after ganforge's callbacks: after each window of theirs plays one of the lean loop's.

    Attributes:
        times: seconds a round, (ganforge, lean) for each pair of windows.
    """

    last: InTurn

    def __init__(self, windows: int, seconds: float) -> None:
        super().__init__(every_kimg=0)
        self.windows, self.seconds = windows, seconds
        self.times: list[tuple[float, float]] = []
        self.start = 0.0
        InTurn.last = self

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.lean = LeanLoop(pl_module, trainer.datamodule.data)
        self.lean.play(2)
        start = time.process_time()
        self.lean.play(2)
        self.window = max(4, round(2 * self.seconds / (time.process_time() - start)))
        self.images = pl_module.images_per_round

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return module.round % self.window == 0

    def act(self, trainer: Any, module: AdversarialModule, run: Run) -> None:
        now = time.process_time()
        self.lean.play(self.window)
        if self.start:  # the first window is there to warm up
            self.times.append(((now - self.start) / self.window, (time.process_time() - now) / self.window))
        if len(self.times) == self.windows:
            run.ended_because = "measured"
        self.start = time.process_time()


class Memory(Periodic):
    """Notes the process's memory, in MB, each 250 rounds."""

    last: Memory

    def __init__(self) -> None:
        super().__init__(every_kimg=0)
        self.megabytes: list[float] = []
        Memory.last = self

    def due(self, module: AdversarialModule, run: Run) -> bool:
        return module.round % 250 == 0

    def act(self, trainer: Any, module: AdversarialModule, run: Run) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.megabytes.append(pages * resource.getpagesize() / 2**20)


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


def compare(words: Sequence[str], windows: int, seconds: float) -> tuple[float, float, float]:
    """Images/s of ganforge and of the lean loop, and the median of their ratio over the pairs of windows."""
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
    arguments, words = parser.parse_known_args()
    torch.set_num_threads(1)
    print(f"one thread, torch {torch.__version__}; the ratio's bar in brackets")
    print("| model | ganforge, img/s | lean loop, img/s | ratio |\n|---|---|---|---|")
    for model in arguments.models:
        ours, lean, ratio = compare([*MODELS[model], *words], arguments.windows, arguments.seconds)
        print(f"| {model} | {ours:,.0f} | {lean:,.0f} | {ratio:.3f} ({BARS[model]:.2f}) |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        callback = f"+callbacks.memory={{_target_: {Memory.__module__}.Memory}}"
        run([*MODELS["mlp_8"], *words, callback, "total_kimg=128", "batch_size=64"], Path(folder) / "run")
    megabytes = " ".join(f"{each:.1f}" for each in Memory.last.megabytes)
    print(f"memory each 250 rounds of mlp_8, MB: {megabytes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
