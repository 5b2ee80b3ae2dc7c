"""Samples in any number from a game: batch by batch, the same for the same seed whatever the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.game import Game


def proportional_labels(class_counts: Sequence[int], n: int) -> Tensor:
    """n labels, int64 (n,), with the data's class frequencies and no randomness; zeros where there are no classes.

    Label i is the class at quantile (i + 1/2) / n of the data, taken in an order that spreads every class evenly
    over the batches.
    """
    if not class_counts:
        return torch.zeros(n, dtype=torch.int64)
    upper = torch.tensor(class_counts, dtype=torch.float64).cumsum(0)
    quantiles = (torch.arange(n, dtype=torch.float64) + 0.5) / n * upper[-1]
    labels = torch.searchsorted(upper, quantiles, right=True)
    stride = next(
        s for s in range(int(n * 0.618) + 1, 2 * n + 2) if torch.gcd(torch.tensor(s), torch.tensor(n)) == 1
    )
    return labels[torch.arange(n) * stride % n]


@torch.no_grad()
def generate(
    game: Game,
    generator_side: nn.Module,
    labels: Tensor,
    *,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (samples float32 (b, ...), labels int64 (b,)), in the order of `labels`.

    Batch k draws its noise from (seed, k): the samples depend on the seed, the labels and the batch size alone.
    """
    for k, chunk in enumerate(torch.split(labels, batch_size)):
        chunk = chunk.to(device)
        yield game.sample(Draws(seed, f"generate/{k}"), chunk, generator_side), chunk
