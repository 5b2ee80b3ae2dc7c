"""What every evaluator promises: figures of generated samples against real ones, and how they were made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class RealData(Protocol):
    """What an evaluator needs of a data set."""

    name: str
    shape: tuple[int, ...]
    labels: Tensor
    num_classes: int
    class_names: list[str]

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, /) -> Tensor:
        """Rows `indices` (int64 (B,)): uint8 (B, C, H, W), or float32 (B, D) for vectors."""
        ...

    def fingerprint(self) -> str: ...


class Evaluator(ABC):
    """Figures of generated samples against real ones.

    The order of calls: `load_state` when there is one, `prepare`, then `evaluate` as often as wanted. Nothing
    here touches the global random number generators: a run with evaluation ends with the same weights as one
    without.

    Attributes:
        name: what made the figures: 'digits', 'inception', 'domain', 'mixture', 'none'.
        comparable_with_papers: whether the figures may be set beside published ones.
        monitor: the figure that best weights are kept by; smaller is better.
        num_samples: how many generated samples an evaluation during training takes.
        final_num_samples: how many the one at the end takes.
    """

    name: str
    comparable_with_papers: bool = False
    monitor: str = "fid"
    num_samples: int
    final_num_samples: int

    @abstractmethod
    def prepare(self, data: RealData | None, device: torch.device | str) -> None:
        """Build what evaluation needs; `data` is None when only a loaded state is there.

        With several processes call it on one first: what it downloads or trains is then found by the others.

        Raises:
            ValueError: it cannot work with this data or without some file; the message names the ways out.
        """

    @abstractmethod
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]], *, conditional: bool) -> dict[str, float]:
        """Figures of all the samples of `batches`.

        Args:
            batches: generated images float (B, C, H, W) in [-1, 1], or vectors (B, D), and the labels asked
            for,
                int64 (B,).
            conditional: whether the labels meant something to the generator.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What makes `evaluate` possible without the data: plain values and tensors; {} at first."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""

    @abstractmethod
    def stamp(self) -> dict[str, str | int | float]:
        """How the figures were made: extractor, weights, real data, versions."""


class NoEvaluation(Evaluator):
    """No figures at all: `metrics=none`."""

    name = "none"
    num_samples = 0
    final_num_samples = 0

    def prepare(self, data: RealData | None, device: torch.device | str) -> None:
        pass

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]], *, conditional: bool) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass

    def stamp(self) -> dict[str, str | int | float]:
        return {"evaluator": self.name}
