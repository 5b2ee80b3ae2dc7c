"""A round of two processes by the way their gradients meet, as multiples of a round that shares nothing.

flat: one all-reduce of the stepping player's gradients as one buffer, as `ganforge train trainer=ddp` does it.
each: an all-reduce for each parameter. ddp: DistributedDataParallel around each network. ddp, one: one
DistributedDataParallel around both, which has to look for unused parameters in every pass.

The designs play in turn, window by window, in the same two gloo processes with one thread each.

python bench/ddp_designs.py [--models mlp_8 dcgan_8] [--windows 9] [--rounds 20]
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import dcgan, mlp
from ganforge.training.gradients import average_gradients_
from header import header

BATCH, LATENT, SIZES = 32, 64, {"mlp_8": 8, "dcgan_8": 8, "dcgan_32": 32}


class Pair(nn.Module):
    """Both networks, as DistributedDataParallel around them has to see them: one forward pass that serves all."""

    def __init__(self, model: str) -> None:
        super().__init__()
        networks = mlp if model.startswith("mlp") else dcgan
        self.size = SIZES[model]
        self.generator = networks.Generator(LATENT, self.size, 1)
        self.discriminator = networks.Discriminator(self.size, 1, norm="none")

    def forward(self, player: str, images: Tensor) -> Tensor:
        return (self.discriminator if player == "discriminator" else self.generator)(images, None)


class Loop:
    """A lean round: discriminator, then generator with the discriminator frozen."""

    def __init__(self, pair: Pair, design: str) -> None:
        self.pair, self.design, self.loss = pair, design, NonSaturating()
        self.players: dict[str, Callable[[Tensor], Tensor]] = {
            name: (lambda x, network=network: network(x, None))
            for name, network in (("generator", pair.generator), ("discriminator", pair.discriminator))
        }
        if design == "ddp":
            for name in self.players:
                wrapped = DistributedDataParallel(getattr(pair, name), forward_sync_buffers=False)
                self.players[name] = lambda x, network=wrapped: network(x, None)
        if design == "ddp, one":
            both = DistributedDataParallel(pair, find_unused_parameters=True, forward_sync_buffers=False)
            self.players = {name: (lambda x, n=name: both(n, x)) for name in self.players}
        self.optimizers = {
            name: torch.optim.Adam(getattr(pair, name).parameters(), lr=2e-4, fused=True)
            for name in self.players
        }

    def round(self) -> None:
        real = torch.rand(BATCH, 1, self.pair.size, self.pair.size)
        with torch.no_grad():
            fake = self.pair.generator(torch.randn(BATCH, LATENT), None)
        # One pass of the discriminator: DistributedDataParallel counts on one backward for each forward.
        logits = self.players["discriminator"](torch.cat([real, fake]))
        self.step("discriminator", self.loss.discriminator_loss(logits[:BATCH], logits[BATCH:]))
        self.pair.discriminator.requires_grad_(False)
        fake = self.players["generator"](torch.randn(BATCH, LATENT))
        self.step("generator", self.loss.generator_loss(None, self.pair.discriminator(fake, None)))
        self.pair.discriminator.requires_grad_(True)

    def step(self, player: str, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        parameters = list(getattr(self.pair, player).parameters())
        if self.design == "flat":
            average_gradients_(parameters)
        elif self.design == "each":
            for parameter in parameters:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        self.optimizers[player].step()


DESIGNS = ["nothing shared", "flat", "each", "ddp", "ddp, one"]


def play(rank: int, port: int, models: list[str], windows: int, rounds: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for model in models:
        loops = []
        for design in DESIGNS:
            torch.manual_seed(0)
            loops.append(Loop(Pair(model), design))
        times: list[list[float]] = [[] for _ in loops]
        for window in range(windows + 1):
            for loop, taken in zip(loops, times, strict=True):
                dist.barrier()
                start = time.perf_counter()
                for _ in range(rounds):
                    loop.round()
                if window:  # the first one is there to warm up
                    taken.append((time.perf_counter() - start) / rounds)
        medians = [statistics.median(taken) for taken in times]
        if rank == 0:
            row = " | ".join(f"{median / medians[0]:.2f}" for median in medians)
            print(f"| {model} | {1000 * medians[0]:.2f} ms | {row} |", flush=True)
    dist.destroy_process_group()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["mlp_8", "dcgan_8"])
    parser.add_argument("--windows", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=20, help="in a window")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{header(seed=0)} Two gloo processes, one thread and batch {BATCH} each.\n")
    print("| model | nothing shared | " + " | ".join(DESIGNS) + " |\n|---|---|" + "---|" * len(DESIGNS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(play, (port, arguments.models, arguments.windows, arguments.rounds), nprocs=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
