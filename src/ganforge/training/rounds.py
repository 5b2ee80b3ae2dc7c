"""The stream of training batches: which images a round shows is a function of the seed and of the images seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ganforge.draws import Draws, derive_seed
from ganforge.evaluation.ranks import Ranks

ALONE = Ranks()


class Samples(Protocol):
    """What training asks of a data set: see ganforge.datasets.samples.Samples."""

    labels: Tensor
    num_classes: int
    in_memory: bool
    flip: bool

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...
    def batch(self, indices: Tensor) -> Tensor: ...
    def permutation(self, generator: torch.Generator) -> Tensor: ...
    def expect(self, indices: Tensor) -> None: ...


class RoundIndices:
    """Endless int64 indices, a round's at a time: epoch after epoch, each a permutation of its own.

    Every rank walks the same order and takes its share of each micro-batch: together they show what one would.

    Args:
        length: number of images in the data set.
        images_per_round: images one round shows, all discriminator steps and all ranks together.
        seed: the run's seed.
        start: returns the number of images already seen; asked when an iteration starts.
        micro_batches: equal parts of a round that are played one after the other.
        ranks: this process among those that share the round.
        permute: the order of an epoch out of its generator; None takes any with equal probability.
    """

    def __init__(
        self,
        length: int,
        images_per_round: int,
        seed: int,
        start: Callable[[], int],
        micro_batches: int = 1,
        ranks: Ranks = ALONE,
        permute: Callable[[torch.Generator], Tensor] | None = None,
    ) -> None:
        if images_per_round % (micro_batches * ranks.size):
            raise ValueError(
                f"{images_per_round} images a round cannot be cut into {micro_batches} micro-batches for "
                f"{ranks.size} ranks"
            )
        self.length = length
        self.images_per_round = images_per_round
        self.seed = seed
        self.start = start
        self.micro_batches = micro_batches
        self.ranks = ranks
        self.permute = permute or (lambda generator: torch.randperm(length, generator=generator))

    def __iter__(self) -> Iterator[Tensor]:
        epoch, offset = divmod(self.start(), self.length)
        pending = self._permutation(epoch)[offset:]
        while True:
            while len(pending) < self.images_per_round:
                epoch += 1
                pending = torch.cat([pending, self._permutation(epoch)])
            yield self._share(pending[: self.images_per_round])
            pending = pending[self.images_per_round :]

    def _share(self, round_: Tensor) -> Tensor:
        """This rank's rows of each micro-batch: the same ones for which `Draws` hands it numbers."""
        return round_.view(self.micro_batches, self.ranks.size, -1)[:, self.ranks.rank].flatten()

    def _permutation(self, epoch: int) -> Tensor:
        return self.permute(torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch)))


class Rounds(LightningDataModule):
    """A round's batch at a time: `images` uint8 (or float32 vectors) and `labels` int64, as the data set holds them.

    Data in memory is indexed as one tensor; larger data is decoded by workers ahead of time.

    Args:
        data: the data set.
        conditional: whether labels are handed on; zeros otherwise.
        images_per_round: images one round shows.
        seed: the run's seed.
        start: returns the number of images already seen.
        workers: processes of this rank that decode images of data that is not in memory.
        micro_batches: equal parts of a round that are played one after the other.
        ranks: this process among those that share the round.
        resident: the device that all of the data is put on once, as it is; None for a batch at a time.
    """

    def __init__(
        self,
        data: Samples,
        *,
        conditional: bool,
        images_per_round: int,
        seed: int,
        start: Callable[[], int],
        workers: int = 2,
        micro_batches: int = 1,
        ranks: Ranks = ALONE,
        resident: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.resident = resident
        self.data = data
        self.workers = workers
        self.labels = data.labels if conditional else torch.zeros(len(data), dtype=torch.int64)
        self.indices = RoundIndices(
            len(data), images_per_round, seed, start, micro_batches, ranks, data.permutation
        )

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        if self.resident is not None:
            everything = self.data.batch(torch.arange(len(self.data))).to(self.resident)
            return _ResidentRounds(everything, self.labels.to(self.resident), self.indices)
        if self.data.in_memory:
            return _InMemoryRounds(self.data, self.labels, self.indices)
        labelled: Any = _Labelled(self.data, self.labels)
        return DataLoader(
            labelled,
            batch_sampler=_Lists(self.indices, self.data.expect),
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )


class _InMemoryRounds:
    def __init__(self, data: Samples, labels: Tensor, indices: RoundIndices) -> None:
        self.data, self.labels, self.indices = data, labels, indices

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for indices in self.indices:
            yield {"images": self.data.batch(indices), "labels": self.labels[indices]}


class _ResidentRounds:
    def __init__(self, images: Tensor, labels: Tensor, indices: RoundIndices) -> None:
        self.images, self.labels, self.indices = images, labels, indices

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for indices in self.indices:
            here = indices.to(self.images.device, non_blocking=True)
            yield {"images": self.images[here], "labels": self.labels[here]}


class _Labelled:
    """One image and its label: what a worker of a DataLoader makes."""

    def __init__(self, data: Samples, labels: Tensor) -> None:
        self.data, self.labels = data, labels

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": self.data[index], "labels": self.labels[index]}


class _Lists:
    """A round's indices for a DataLoader, which asks for them some rounds ahead."""

    def __init__(self, indices: RoundIndices, expect: Callable[[Tensor], None]) -> None:
        self.indices, self.expect = indices, expect

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self.indices:
            self.expect(indices)
            yield indices.tolist()


def flip_horizontally(images: Tensor, draws: Draws) -> Tensor:
    """Each of (B, C, H, W) mirrored left to right with probability 1/2."""
    mirrored = draws.uniform(len(images), device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
