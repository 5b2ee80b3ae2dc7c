"""What every evaluator promises: figures of generated samples against real ones, and how they were made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ganforge.evaluation.metrics.metric import Better
from ganforge.evaluation.ranks import Ranks
from ganforge.evaluation.sample import Model, Statistics
from ganforge.evaluation.stamp import Stamp

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images float (B, C, H, W) in [-1, 1] or uint8, or vectors (B, D); and the labels asked for, int64 (B,)."""

_BATCH = 256


class RealData(Protocol):
    """What an evaluator needs of a data set, on either side of the comparison."""

    name: str
    shape: tuple[int, ...]
    labels: Tensor
    num_classes: int
    class_names: list[str]
    split: str | None

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, /) -> Tensor:
        """Rows `indices` (int64 (B,)): uint8 (B, C, H, W), or float32 (B, D) for vectors."""
        ...

    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class KnownStatistics:
    """A real side of which only the mean and covariance of features are known.

    Attributes:
        name: of the file.
        statistics: of the real images.
        fingerprint: of the file's content.
        stamp: what made them, where the file says so: `extractor` and `real` as in a protocol stamp.
    """

    name: str
    statistics: Statistics
    fingerprint: str
    stamp: Stamp


class NonFiniteSamplesError(ValueError):
    """Generated samples hold NaN or infinity."""


class Evaluator(ABC):
    """Figures of generated samples against real ones.

    The order of calls: `load_state` when there is one, `prepare`, then `evaluate` as often as wanted. Nothing
    here touches the global random number generators: a run with evaluation ends with the same weights as one
    without. With several processes each passes its own share of the batches, and all get the same figures.

    Attributes:
        name: what made the figures: 'digits', 'inception', 'domain', 'mixture', 'none'.
        comparable_with_papers: whether the figures may be set beside published ones.
        figures: the names of all figures it may give, and which way is better.
        monitor: the figure that best weights are kept by.
        num_samples: how many generated samples an evaluation during training takes.
        final_num_samples: how many the one at the end takes.
    """

    name: str
    comparable_with_papers: bool = False
    figures: Mapping[str, Better]
    monitor: str
    num_samples: int
    final_num_samples: int

    @abstractmethod
    def prepare(
        self,
        data: RealData | KnownStatistics | None,
        device: torch.device | str,
        held_out: RealData | None = None,
    ) -> None:
        """Build what evaluation needs, and read the real side.

        Args:
            data: the real side; None when only a loaded state is there.
            device: where the extractor runs.
            held_out: further real images that no generator was trained on, for the metrics that want some.

        Raises:
            ValueError: it cannot work with this data or without some file; the message names the ways out.
        """

    @abstractmethod
    def evaluate(
        self, batches: Batches, *, conditional: bool, model: Model | None = None
    ) -> dict[str, float]:
        """Figures of all the samples of `batches`.

        Args:
            batches: this process's share of the generated samples.
            conditional: whether the labels meant something to the generator.
            model: what made them, for metrics that ask more of it.

        Raises:
            NonFiniteSamplesError: some samples hold NaN or infinity.
            ValueError: samples of the wrong shape, or too few.
        """

    def evaluate_data(self, data: RealData | KnownStatistics) -> dict[str, float]:
        """Figures of a data set, or of statistics, in the place of generated samples."""
        if isinstance(data, KnownStatistics):
            raise ValueError(f"{data.name} holds statistics, but metrics={self.name} needs samples")
        return self.evaluate(batches_of(data), conditional=data.num_classes > 0)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What makes `evaluate` possible without the data: plain values and tensors; {} at first."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""

    @abstractmethod
    def stamp(self) -> Stamp:
        """How the figures were made: the sections `extractor`, `metrics` and `real` of a protocol stamp."""


def batches_of(data: RealData) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of all samples of a data set, in order."""
    for rows in Ranks.current().mine(torch.split(torch.arange(len(data)), _BATCH)):
        yield data.batch(rows), data.labels[rows]


class NoEvaluation(Evaluator):
    """No figures at all: `metrics=none`."""

    name = "none"
    figures: Mapping[str, Better] = {}
    monitor = ""
    num_samples = 0
    final_num_samples = 0

    def prepare(
        self,
        data: RealData | KnownStatistics | None,
        device: torch.device | str,
        held_out: RealData | None = None,
    ) -> None:
        pass

    def evaluate(
        self, batches: Batches, *, conditional: bool, model: Model | None = None
    ) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass

    def stamp(self) -> Stamp:
        return {"extractor": {"name": self.name}, "metrics": {}, "real": {}}
