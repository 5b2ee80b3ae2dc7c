"""Features and classes of stacked pictures: each channel, as a grey picture, through one extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor


class Stacked(Extractor):
    """The features of the channels in a row; and as logits, for each row of classes (a, b, c), log p(a) p(b) p(c).

    The class of (a, b, c) is a K² + b K + c, for K classes of a channel.

    Args:
        classifier: an extractor of grey pictures, which is prepared with the data's `parts`.
    """

    name = "stacked"

    def __init__(self, classifier: Extractor) -> None:
        self.classifier = classifier
        self.dtype = classifier.dtype

    @property
    def network(self) -> nn.Module | None:  # type: ignore[override]
        return self.classifier.network

    @property
    def resize(self) -> str:  # type: ignore[override]
        return self.classifier.resize

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        parts = None
        if data is not None:
            parts = cast(RealData | None, getattr(data, "parts", None))
            if parts is None:
                raise ValueError(
                    f"metrics=stacked needs pictures stacked of others, such as data=stacked_digits, not {data.name}; "
                    "choose metrics=domain, metrics=inception or metrics=none."
                )
        self.classifier.prepare(parts, device, cache)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if images.shape[1] == 1:
            raise ValueError(f"metrics=stacked takes pictures of several channels, not {tuple(images.shape)}")
        features, logits = self.classifier.extract(images.flatten(0, 1)[:, None])
        features = features.view(len(images), -1)
        if logits is None:
            return features, None
        each = logits.log_softmax(dim=1).view(len(images), images.shape[1], -1)
        joint = each[:, 0]
        for channel in each.unbind(1)[1:]:
            joint = (joint[:, :, None] + channel[:, None, :]).flatten(1)
        return features, joint

    def classifies(self, data: RealData) -> bool:
        parts = getattr(data, "parts", None)
        return parts is not None and data.num_classes > 0 and self.classifier.classifies(parts)

    def state(self) -> dict[str, Any]:
        return {"classifier": self.classifier.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.classifier.load_state(state["classifier"])

    def stamp(self) -> dict[str, str | int | float]:
        return {"classifier": self.classifier.name, **self.classifier.stamp()}
