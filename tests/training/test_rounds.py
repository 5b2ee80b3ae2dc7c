"""Which images a round shows is a function of the seed and of the images seen."""

from __future__ import annotations

import itertools
import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ganforge.datasets.samples import TensorSamples
from ganforge.draws import Draws
from ganforge.training.rounds import RoundIndices, Rounds, flip_horizontally
from ganforge.training.run import crossed

lengths = st.integers(1, 40)
rounds = st.integers(1, 25)
seeds = st.integers(0, 2**32)


def take(indices: RoundIndices, n: int) -> list[Tensor]:
    return list(itertools.islice(indices, n))


@given(length=lengths, per_round=rounds, seed=seeds)
def test_each_epoch_shows_each_image_once_in_an_order_of_its_own(
    length: int, per_round: int, seed: int
) -> None:
    indices = take(RoundIndices(length, per_round, seed, start=lambda: 0), 4 * length // per_round + 1)
    assert all(len(one) == per_round and one.dtype == torch.int64 for one in indices)
    epochs = torch.split(torch.cat(indices), length)[:-1]
    assert all(torch.equal(epoch.sort().values, torch.arange(length)) for epoch in epochs)
    if length >= 20:
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == len(epochs)


@given(length=lengths, per_round=rounds, seed=seeds, skipped=st.integers(0, 60))
def test_a_stream_entered_anywhere_is_the_same_stream(
    length: int, per_round: int, seed: int, skipped: int
) -> None:
    whole = take(RoundIndices(length, per_round, seed, start=lambda: 0), skipped + 5)
    entered = take(RoundIndices(length, per_round, seed, start=lambda: skipped * per_round), 5)
    assert torch.equal(torch.stack(whole[skipped:]), torch.stack(entered))


@given(length=lengths, seed=seeds)
def test_rounds_of_another_size_walk_the_same_order(length: int, seed: int) -> None:
    small = torch.cat(take(RoundIndices(length, 3, seed, start=lambda: 0), 20))
    large = torch.cat(take(RoundIndices(length, 12, seed, start=lambda: 0), 5))
    assert torch.equal(small, large)


class Streamed(TensorSamples):
    """The same samples, one at a time."""

    def __init__(self, data: Tensor, labels: Tensor) -> None:
        super().__init__("streamed", data, labels, num_classes=3)
        self.in_memory = False

    def batch(self, indices: Tensor) -> Tensor:
        raise AssertionError("streamed data is read by the image")


def test_batches_are_the_same_from_memory_and_from_workers() -> None:
    data, labels = torch.randint(256, (11, 1, 4, 4), dtype=torch.uint8), torch.randint(3, (11,))
    seed, start = random.randrange(2**32), random.randrange(50)
    kinds = [
        (TensorSamples("memory", data, labels, num_classes=3), 0),
        (Streamed(data, labels), 0),
        (Streamed(data, labels), 2),
    ]
    for conditional in (True, False):
        streams = []
        for samples, workers in kinds:
            source = Rounds(
                samples,
                conditional=conditional,
                images_per_round=5,
                seed=seed,
                start=lambda: start,
                workers=workers,
            )
            loader = source.train_dataloader()
            streams.append(list(itertools.islice(loader, 4)))
            del loader
        indices = take(RoundIndices(11, 5, seed, start=lambda: start), 4)
        for stream in streams:
            for batch, chosen in zip(stream, indices, strict=True):
                assert torch.equal(batch["images"], data[chosen])
                assert torch.equal(batch["labels"], labels[chosen] if conditional else chosen * 0)


def test_half_of_the_images_are_mirrored_left_to_right() -> None:
    images = torch.randn(400, 2, 3, 3)
    flipped = flip_horizontally(images, Draws(random.randrange(2**32), 0))
    same = (flipped == images).flatten(1).all(dim=1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(same, ~mirrored)
    assert 140 < mirrored.sum() < 260


@given(
    period=st.integers(1, 5000),
    images=st.integers(1, 500),
    n=st.integers(1, 60),
)
def test_a_clock_crosses_each_multiple_of_the_period_in_one_round(period: int, images: int, n: int) -> None:
    clock = [i * images for i in range(n + 1)]
    acted = [crossed(period / 1000, a, b) for a, b in itertools.pairwise(clock)]
    multiples = [
        any(a < k * period <= b for k in range(b // period + 1)) for a, b in itertools.pairwise(clock)
    ]
    assert acted == multiples


def test_no_period_is_never_crossed() -> None:
    assert not crossed(0, 0, 10**9)
    assert crossed(0.064, 0, 64)
    assert not crossed(0.064, 64, 127)
