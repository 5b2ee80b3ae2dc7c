"""What turns images into the features and class logits that the metrics compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.classifier import weights_hash
from ganforge.evaluation.evaluator import RealData


class Extractor(ABC):
    """A frozen network: uint8 images -> features and, where it classifies, logits.

    Attributes:
        name: as it stands in stamps and cached files.
        comparable_with_papers: whether figures made with it may be set beside published ones.
        resize: how images are brought to the network's size, in words.
        dtype: what the network computes in.
        network: the network once prepared.
    """

    name: str
    comparable_with_papers: bool = False
    resize: str
    dtype: str = "float32"
    network: nn.Module | None = None

    @abstractmethod
    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        """Build the network on the device; a second call only moves it.

        Raises:
            ValueError: it cannot be built; the message names the ways out.
        """

    @abstractmethod
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (B, 1 or 3, H, W) on the device -> features float32 (B, D), logits float32 (B, K) or None."""

    def classifies(self, data: RealData) -> bool:
        """Whether the most likely class is a label of the data."""
        return False

    def weights_hash(self) -> str:
        assert self.network is not None
        return weights_hash(self.network.state_dict())

    def state(self) -> dict[str, Any]:
        """What cannot be had again without the data."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave, before `prepare`."""
        assert not state

    def stamp(self) -> dict[str, str | int | float]:
        return {}


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Full float32 whatever the training runs in: autocast and TF32 move features by up to a percent."""
    backends: Any = torch.backends
    operations = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    before = [operation.fp32_precision for operation in operations]
    for operation in operations:
        operation.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            operation.fp32_precision = precision
