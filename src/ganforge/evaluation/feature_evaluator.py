"""Figures of generated images: extractor built once, real images read once, one pass for all metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch_fidelity
from torch import Tensor

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.evaluator import Evaluator, RealData
from ganforge.evaluation.extractor import Extractor, exact_float32
from ganforge.evaluation.figures import FEWEST_SAMPLES, class_consistency, distribution_figures
from ganforge.evaluation.reference import Reference
from ganforge.images import to_uint8

log = logging.getLogger(__name__)

_SUBSET_SEED = 2026


class Extracted(NamedTuple):
    """Features float32 (N, D), logits float32 (N, K) and the labels asked for int64 (N,), all on the CPU."""

    features: Tensor
    logits: Tensor
    labels: Tensor


class FeatureEvaluator(Evaluator):
    """FID, KID, Inception Score, precision, recall and, for a conditional generator, class consistency.

    `evaluate` is `extract` followed by `figures`; with several processes each may extract its share, and the
    features, joined in order, give the figures that one process would.

    Args:
        extractor: what the features come from.
        num_samples: samples of an evaluation during training.
        final_num_samples: samples of the last one.
        batch_size: images that go through the extractor at a time.
        max_real: real images to compare with, a fixed random subset of larger data; None takes all.
        cache_dir: folder of cached features; None is $GANFORGE_CACHE or ~/.cache/ganforge.
        kid_subset_size: samples in each of KID's 100 subsets.
    """

    def __init__(
        self,
        extractor: Extractor,
        num_samples: int,
        final_num_samples: int,
        batch_size: int = 64,
        max_real: int | None = None,
        cache_dir: str | None = None,
        kid_subset_size: int = 1000,
    ) -> None:
        for argument, value in (("num_samples", num_samples), ("final_num_samples", final_num_samples)):
            if value < FEWEST_SAMPLES:
                raise ValueError(
                    f"{argument} is {value}, but the metrics need at least {FEWEST_SAMPLES} samples"
                )
        if max_real is not None and max_real < FEWEST_SAMPLES:
            raise ValueError(
                f"max_real is {max_real}; take at least {FEWEST_SAMPLES} images, or null for all"
            )
        if kid_subset_size < 2:
            raise ValueError(f"kid_subset_size is {kid_subset_size}, but KID needs subsets of at least 2")
        self.extractor = extractor
        self.name = extractor.name
        self.comparable_with_papers = extractor.comparable_with_papers
        self.num_samples = num_samples
        self.final_num_samples = final_num_samples
        self.batch_size = batch_size
        self.max_real = max_real
        self.kid_subset_size = kid_subset_size
        self._cache = Cache(cache_dir)
        self._device: torch.device | None = None
        self._data: RealData | None = None
        self._reference: Reference | None = None
        self._weights_hash = ""
        self._warned = False

    def prepare(self, data: RealData | None, device: torch.device | str) -> None:
        if data is not None:
            _check_images(data)
        self._data, self._device = data, torch.device(device)
        with torch.inference_mode(
            False
        ):  # a trainer's evaluation may be inside it; weights made there cannot learn
            self.extractor.prepare(data, self._device, self._cache)
        self._weights_hash = self.extractor.weights_hash()
        if self._reference is not None and not self._still_valid(self._reference):
            self._reference = None

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]], *, conditional: bool) -> dict[str, float]:
        return self.figures(self.extract(batches), conditional=conditional)

    def extract(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Extracted:
        """Read generated images, float (B, C, H, W) in [-1, 1], as the uint8 they would be in files."""

        def quantised() -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels in batches:
                if images.dim() != 4:
                    raise ValueError(
                        f"metrics={self.name} takes images (B, C, H, W), not {tuple(images.shape)}"
                    )
                yield to_uint8(images), labels

        return self._pass(quantised())

    def figures(self, generated: Extracted, *, conditional: bool) -> dict[str, float]:
        """The figures of what `extract` gave."""
        count, dimensions = generated.features.shape
        if count < FEWEST_SAMPLES:
            raise ValueError(f"the metrics need at least {FEWEST_SAMPLES} samples, not {count}")
        reference = self._reference_of_data()
        self._warn_of_bias(min(count, reference.count), dimensions)
        with exact_float32(torch.device("cpu")):
            result = distribution_figures(
                generated.features, generated.logits, reference, self.kid_subset_size
            )
        if conditional and reference.classifies:
            result["class_consistency"] = class_consistency(generated.logits, generated.labels)
        return result

    def state(self) -> dict[str, Any]:
        if self._reference is None:
            return {}
        return {
            "name": self.name,
            "reference": self._reference.state(),
            "extractor": self.extractor.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        if state["name"] != self.name:
            raise ValueError(
                f"the checkpoint's reference was made with metrics={state['name']}, not metrics={self.name}; "
                f"choose metrics={state['name']}, or give data=... to read the real images anew."
            )
        self._reference = Reference.from_state(state["reference"])
        self.extractor.load_state(state["extractor"])
        if self._device is not None:
            self.prepare(self._data, self._device)

    def stamp(self) -> dict[str, str | int | float]:
        stamp: dict[str, str | int | float] = {
            "evaluator": self.name,
            "comparable_with_papers": self.comparable_with_papers,
            "weights_sha256": self._weights_hash,
            "resize": self.extractor.resize,
            "quantisation": "uint8",
            "kid_subset_size": self.kid_subset_size,
            "torch_fidelity": torch_fidelity.__version__,
            **self.extractor.stamp(),
        }
        if self._reference is not None:
            stamp |= {
                "real_source": self._reference.source,
                "real_count": self._reference.count,
                "real_features": len(self._reference.features),
                "real_fingerprint": self._reference.fingerprint,
            }
        return stamp

    def _still_valid(self, reference: Reference) -> bool:
        """Whether a loaded reference serves; without data it has to."""
        same_weights = reference.weights_hash == self._weights_hash
        if self._data is None:
            if not same_weights:
                raise ValueError(
                    f"the checkpoint's reference was made with other weights of metrics={self.name} "
                    f"({reference.weights_hash[:12]}, now {self._weights_hash[:12]}); give data=..."
                )
            return True
        same_data = reference.fingerprint == self._data.fingerprint()
        return (
            same_weights
            and same_data
            and reference.count == len(self._real_rows(self._data))
            and reference.complete
        )

    def _reference_of_data(self) -> Reference:
        if self._reference is None:
            if self._data is None:
                raise ValueError(
                    "there are no real images to compare with: give data=..., or such a checkpoint."
                )
            self._reference = Reference.of(
                self._real_features(self._data),
                source=self._data.name,
                fingerprint=self._data.fingerprint(),
                weights_hash=self._weights_hash,
                classifies=self.extractor.classifies(self._data),
            )
        return self._reference

    def _real_features(self, data: RealData) -> Tensor:
        path = self._cache.path(
            "features",
            self.name,
            self._weights_hash,
            self.extractor.resize,
            data.fingerprint(),
            *data.shape,
            "float32",
            self.max_real,
        )
        rows = self._real_rows(data)
        cached = self._cache.load(path)
        if cached is not None and len(cached["features"]) == len(rows):
            return cached["features"]
        log.info("reading %d real images of %s through %s", len(rows), data.name, self.name)
        features = self._pass(
            (data.batch(part), data.labels[part]) for part in torch.split(rows, self.batch_size)
        ).features
        self._cache.save(path, {"features": features})
        return features

    def _real_rows(self, data: RealData) -> Tensor:
        """All rows, or a fixed random subset of `max_real`, in order."""
        if self.max_real is None or len(data) <= self.max_real:
            return torch.arange(len(data))
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SUBSET_SEED))
        return order[: self.max_real].sort().values

    @torch.no_grad()
    def _pass(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Extracted:
        """uint8 images and labels -> features of all; at most `batch_size` images go through at a time."""
        assert self._device is not None, "prepare() comes first"
        features, logits, labels = [], [], []
        with exact_float32(self._device):
            for images, asked in batches:
                labels.append(asked.cpu())
                for part in torch.split(images, self.batch_size):
                    part_features, part_logits = self.extractor.extract(
                        part.to(self._device, non_blocking=True)
                    )
                    features.append(part_features.cpu())
                    logits.append(part_logits.cpu())
        if not features:
            raise ValueError("there are no images to evaluate")
        return Extracted(torch.cat(features), torch.cat(logits), torch.cat(labels))

    def _warn_of_bias(self, count: int, dimensions: int) -> None:
        if count <= dimensions and not self._warned:
            self._warned = True
            log.warning(
                "FID of %d features from %d images is biased upwards: compare it only at equal numbers",
                dimensions,
                count,
            )


def _check_images(data: RealData) -> None:
    if len(data.shape) != 3 or data.shape[0] not in (1, 3):
        raise ValueError(
            f"{data.name} has samples of shape {tuple(data.shape)}, but this evaluation takes grey or "
            "RGB images (C, H, W); choose metrics=mixture for 2-D mixtures, or metrics=none."
        )
    if len(data) < FEWEST_SAMPLES:
        raise ValueError(
            f"{data.name} has {len(data)} images, but the metrics need at least {FEWEST_SAMPLES}; "
            "choose metrics=none."
        )
