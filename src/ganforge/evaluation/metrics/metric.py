"""What every metric is: a pure function of a generated and a real sample, and what it needs of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ganforge.evaluation.sample import Sample

Better = Literal["lower", "higher", "neither"]


class Metric(ABC):
    """Figures of a generated sample against a real one.

    Attributes:
        generated_needs, real_needs: attributes of `Sample` that have to be known: features, logits, labels, images,
            statistics, model, held_out.
        num_images: how many images of each side it reads through `Sample.images`; 0 for none.
        fewest: the fewest samples of either side that it works with.
    """

    generated_needs: ClassVar[tuple[str, ...]] = ("features",)
    real_needs: ClassVar[tuple[str, ...]] = ("features",)
    num_images: int = 0
    fewest: ClassVar[int] = 2

    @property
    @abstractmethod
    def figures(self) -> Mapping[str, Better]:
        """The names of what it gives, and which way is better."""

    def prepare(self) -> None:
        """Get what it needs beside the samples, such as weights, before any long work begins.

        Raises:
            ValueError: it cannot be had; the message names the ways out.
        """
        return None

    @abstractmethod
    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        """The figures, a subset of those named by `figures`."""

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        """Why it cannot be computed of these samples, in words; None when it can."""
        for side, sample, needs in (
            ("generated", generated, self.generated_needs),
            ("real", real, self.real_needs),
        ):
            for need in needs:
                if not sample.has(need):
                    return f"the {side} side has no {need.replace('_', '-')}"
            if needs and sample.count < self.fewest:
                return f"the {side} side has {sample.count} images, fewer than {self.fewest}"
        return None

    def parameters(self) -> dict[str, Any]:
        """The settings that change its value, as plain data, for the protocol stamp: its public attributes."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}
