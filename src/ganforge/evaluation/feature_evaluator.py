"""Figures of generated images: extractor built once, real images read once, one pass of the samples for all."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.evaluator import (
    Batches,
    Evaluator,
    KnownStatistics,
    NonFiniteSamplesError,
    RealData,
)
from ganforge.evaluation.extractor import Extractor, exact_float32
from ganforge.evaluation.metrics.fid import fid_of_real_subset
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.ranks import Ranks
from ganforge.evaluation.sample import Images, Model, Sample, Statistics
from ganforge.evaluation.stamp import Stamp, versions
from ganforge.images import to_uint8
from ganforge.progress import show_progress

log = logging.getLogger("ganforge")

FEWEST_SAMPLES = 4
_SUBSET_SEED = 2026
STATE_BYTES = 16 * 2**20


class _Batch(NamedTuple):
    """What is kept of one batch of images."""

    features: Tensor
    logits: Tensor | None
    labels: Tensor
    images: Tensor


@dataclass(frozen=True)
class _Source:
    """What the real side is, for the stamp.

    Attributes:
        name: of the data set or file.
        fingerprint: of its content.
        count: how many images its figures stand for.
        weights_sha256: of the extractor that read it; empty where a file does not say.
        class_names: the names of its classes.
        split: which part of the data set; None where it has none.
    """

    name: str
    fingerprint: str
    count: int
    weights_sha256: str
    class_names: list[str] = field(default_factory=list)
    split: str | None = None


class FeatureEvaluator(Evaluator):
    """Whatever metrics are asked for, from one pass of the samples through one extractor.

    A metric that a comparison cannot give (a label, a generator, an image is missing) is left out, and said once.
    With several processes each extracts its share; the figures are those that one process would give.

    Args:
        extractor: what the features come from.
        compute: the metrics by name.
        num_samples: samples of an evaluation during training.
        final_num_samples: samples of the last one.
        batch_size: images that go through the extractor at a time.
        max_real: real images to compare with, a fixed random subset of larger data; None takes all.
        cache_dir: folder of cached features; None is $GANFORGE_CACHE or ~/.cache/ganforge.
    """

    def __init__(
        self,
        extractor: Extractor,
        compute: Mapping[str, Metric],
        num_samples: int,
        final_num_samples: int,
        batch_size: int = 64,
        max_real: int | None = None,
        cache_dir: str | None = None,
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
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but a batch holds at least 1 image")
        if not compute:
            raise ValueError("there is nothing to compute; name metrics, such as metrics.compute=[fid,kid]")
        self.extractor = extractor
        self.compute = dict(compute)
        self.figures: dict[str, Better] = {
            name: better for metric in self.compute.values() for name, better in metric.figures.items()
        }
        self.monitor = _default_monitor(self.figures)
        self.num_samples = num_samples
        self.final_num_samples = final_num_samples
        self.batch_size = batch_size
        self.max_real = max_real
        self.num_images = max(metric.num_images for metric in self.compute.values())
        self._cache = Cache(cache_dir)
        self._device = torch.device("cpu")
        self._weights_hash = ""
        self._real: Sample | None = None
        self._source: _Source | None = None
        self._said: set[str] = set()

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.extractor.name

    @property
    def comparable_with_papers(self) -> bool:  # type: ignore[override]
        return self.extractor.comparable_with_papers

    def prepare(
        self,
        data: RealData | KnownStatistics | None,
        device: torch.device | str,
        held_out: RealData | None = None,
    ) -> None:
        images = None if data is None or isinstance(data, KnownStatistics) else data
        if images is not None:
            _check_images(images)
        self._device = torch.device(device)
        # Weights made in a trainer's inference mode could not learn.
        with Ranks.current().first_ahead(), torch.inference_mode(False):
            for metric in self.compute.values():
                metric.prepare()
            self.extractor.prepare(images, self._device, self._cache)
        self._weights_hash = self.extractor.weights_hash()
        if isinstance(data, KnownStatistics):
            self._take_statistics(data)
        elif images is not None:
            self._take_images(images)
        elif self._source is not None and self._source.weights_sha256 != self._weights_hash:
            raise ValueError(
                f"the checkpoint's real side was read with other weights of metrics={self.name} "
                f"({self._source.weights_sha256[:12]}, now {self._weights_hash[:12]}); give real=..."
            )
        if self._real is not None and held_out is not None:
            _check_images(held_out)
            self._real.held_out = self._read(held_out, logits=False)

    def evaluate(
        self, batches: Batches, *, conditional: bool, model: Model | None = None
    ) -> dict[str, float]:
        ranks = Ranks.current()
        sample = _joined(ranks.gather(self._pass(batches, keep=self.num_images)), keep=self.num_images)
        if not conditional:
            sample.labels = None
        sample.model = model
        return ranks.from_first(self._score(sample) if ranks.rank == 0 else None)

    def evaluate_data(self, data: RealData | KnownStatistics) -> dict[str, float]:
        ranks = Ranks.current()
        if isinstance(data, KnownStatistics):
            self._check_statistics(data)
            sample = Sample(count=_count(data), known_statistics=data.statistics)
            return ranks.from_first(self._score(sample) if ranks.rank == 0 else None)
        _check_images(data)
        sample = self._read(data, logits=True)
        if self._source is None or list(data.class_names) != self._source.class_names:
            sample.labels = None  # other classes than the real side's
        return ranks.from_first(self._score(sample) if ranks.rank == 0 else None)

    def read(self, data: RealData) -> Sample:
        """A data set as the extractor sees it, from the cache where it was read before; on rank 0."""
        return self._read(data, logits=True)

    @property
    def real(self) -> Sample:
        """The real side."""
        if self._real is None:
            raise ValueError("there are no real images to compare with: give real=..., or such a checkpoint")
        return self._real

    def _score(self, generated: Sample) -> dict[str, float]:
        real = self.real
        if generated.count < FEWEST_SAMPLES:
            raise ValueError(f"the metrics need at least {FEWEST_SAMPLES} samples, not {generated.count}")
        if generated.dimensions != real.dimensions:
            raise ValueError(
                f"the real side has {real.dimensions} features and the generated one {generated.dimensions}: "
                f"one of them was not made with metrics={self.name}"
            )
        generated.classifies = real.classifies
        lacking = {name: metric.lacks(generated, real) for name, metric in self.compute.items()}
        reasons: dict[str, list[str]] = {}
        for name, why in lacking.items():
            if why:
                reasons.setdefault(why, []).append(name)
        left_out = [f"{', '.join(names)}, because {why}" for why, names in reasons.items()]
        if all(lacking.values()):
            raise ValueError(f"none of the metrics can be computed: {'; '.join(left_out)}")
        for text in left_out:
            self._say_once(logging.INFO, f"left out: {text}")
        self._warn_of_bias(generated, real)
        return self._compute([name for name, why in lacking.items() if not why], generated, real)

    def _compute(self, names: Sequence[str], generated: Sample, real: Sample) -> dict[str, float]:
        """The figures; a metric that stumbles over these samples costs the others nothing."""
        figures: dict[str, float] = {}
        with exact_float32(torch.device("cpu")):
            for name in names:
                try:
                    found = self.compute[name](generated, real)
                except ValueError as error:
                    self._say_once(logging.WARNING, f"left out: {name}: {error}")
                    continue
                for figure, value in found.items():
                    if math.isfinite(value):
                        figures[figure] = value
                    else:
                        self._say_once(logging.WARNING, f"left out: {figure} is {value}")
        if not figures:
            raise ValueError(f"none of {', '.join(names)} could be computed of these samples")
        return figures

    def state(self) -> dict[str, Any]:
        if self._real is None or self._source is None or self._real.features is None:
            return {}
        return {
            "name": self.name,
            "source": asdict(self._source),
            "real": _sample_state(self._real),
            "extractor": self.extractor.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        if state["name"] != self.name:
            raise ValueError(
                f"the checkpoint's real side was read with metrics={state['name']}, not metrics={self.name}; "
                f"choose metrics={state['name']}, or give real=... to read the real images anew"
            )
        self._source = _Source(**state["source"])
        self._real = _sample_from_state(state["real"])
        self.extractor.load_state(state["extractor"])

    def stamp(self) -> Stamp:
        real: dict[str, Any] = {}
        if self._source is not None:
            assert self._real is not None
            real = {
                "name": self._source.name,
                "split": self._source.split,
                "count": self._source.count or None,
                "features": 0 if self._real.features is None else len(self._real.features),
                "fingerprint": self._source.fingerprint,
            }
            if self._real.held_out is not None:
                real["held_out"] = self._real.held_out.count
        return {
            "extractor": {
                "name": self.name,
                "weights_sha256": self._weights_hash,
                "resize": self.extractor.resize,
                "dtype": self.extractor.dtype,
                "quantisation": "uint8",
                "comparable_with_papers": self.comparable_with_papers,
                **self.extractor.stamp(),
            },
            "metrics": {name: metric.parameters() for name, metric in self.compute.items()},
            "real": real,
            "versions": versions(),
        }

    def _take_images(self, data: RealData) -> None:
        """The real side from images, unless what was loaded is just that."""
        fingerprint = data.fingerprint()
        loaded, rows = self._real, self._rows(data)
        same = self._source is not None and (
            (self._source.fingerprint, self._source.weights_sha256, self._source.count)
            == (fingerprint, self._weights_hash, len(rows))
        )
        if loaded is not None and same and loaded.features is not None and len(loaded.features) == len(rows):
            loaded.images, loaded.num_images = _images(data, rows), len(rows)
            return
        self._real = self._read(data, logits=False)
        self._real.classifies = self.extractor.classifies(data)
        self._source = _Source(
            data.name, fingerprint, len(rows), self._weights_hash, list(data.class_names), data.split
        )

    def _take_statistics(self, known: KnownStatistics) -> None:
        self._check_statistics(known)
        weights = known.stamp.get("extractor", {}).get("weights_sha256", "")
        self._real = Sample(count=_count(known), known_statistics=known.statistics)
        count = int(known.stamp.get("real", {}).get("count", 0))
        self._source = _Source(known.name, known.fingerprint, count, weights)

    def _check_statistics(self, known: KnownStatistics) -> None:
        """Where the file says what made it, it has to be this extractor."""
        made_with = known.stamp.get("extractor", {})
        theirs, ours = made_with.get("weights_sha256", ""), self._weights_hash
        if theirs and theirs != ours:
            raise ValueError(
                f"{known.name} was made with metrics={made_with.get('name')} and weights {theirs[:12]}, "
                f"but metrics={self.name} has weights {ours[:12]}"
            )
        if theirs and made_with.get("resize") != self.extractor.resize:
            raise ValueError(
                f"{known.name} was made with images resized as {made_with.get('resize')}, "
                f"but this extractor resizes them as {self.extractor.resize}"
            )

    def _read(self, data: RealData, *, logits: bool) -> Sample:
        """A data set as the extractor sees it: features from the cache, or through it; whole on rank 0 only."""
        rows = self._rows(data)
        logits = logits and self._wants_logits
        path = self._cache.path(
            "features",
            self.name,
            self._weights_hash,
            self.extractor.resize,
            data.fingerprint(),
            *data.shape,
            self.extractor.dtype,
            self.max_real,
            logits,
        )
        ranks = Ranks.current()
        cached = _whole(self._cache.load(path), len(rows)) if ranks.rank == 0 else {}
        if not ranks.from_first(bool(cached)):
            parts = ranks.mine(torch.split(rows, self.batch_size))
            pairs = ((data.batch(part), data.labels[part]) for part in parts)
            pairs = show_progress(pairs, len(parts), f"{self.name}: {data.name}")
            sample = _joined(ranks.gather(self._pass(pairs, keep=0)), keep=0)
            made = {"features": sample.features, "logits": sample.logits if logits else None}
            cached = {name: tensor for name, tensor in made.items() if tensor is not None}
            if ranks.rank == 0:
                self._cache.save(path, cached)
        return Sample(
            count=len(rows),
            features=cached.get("features"),
            logits=cached.get("logits"),
            labels=data.labels[rows] if data.num_classes else None,
            images=_images(data, rows),
            num_images=len(rows),
        )

    @property
    def _wants_logits(self) -> bool:
        return any("logits" in metric.generated_needs for metric in self.compute.values())

    def _rows(self, data: RealData) -> Tensor:
        """All rows, or a fixed random subset of `max_real`, in order."""
        if self.max_real is None or len(data) <= self.max_real:
            return torch.arange(len(data))
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SUBSET_SEED))
        return order[: self.max_real].sort().values

    @torch.no_grad()
    def _pass(self, batches: Batches, keep: int) -> list[_Batch]:
        """This rank's batches through the extractor, with the first `keep` images kept."""
        result: list[_Batch] = []
        kept = seen = wrong = 0
        with exact_float32(self._device):
            for images, labels in batches:
                images, bad = self._as_files(images)
                seen, wrong = seen + len(images), wrong + bad
                features, logits = [], []
                for part in torch.split(images, self.batch_size):
                    part_features, part_logits = self.extractor.extract(
                        part.to(self._device, non_blocking=True)
                    )
                    features.append(part_features.cpu())
                    logits.append(
                        None if part_logits is None or not self._wants_logits else part_logits.cpu()
                    )
                remaining = images[: max(0, keep - kept)].cpu()
                kept += len(remaining)
                result.append(_Batch(torch.cat(features), _cat(logits), labels.cpu(), remaining))
        if wrong:
            raise NonFiniteSamplesError(f"{wrong} of {seen} generated images hold NaN or infinity")
        return result

    def _as_files(self, images: Tensor) -> tuple[Tensor, int]:
        """Images as the uint8 they would be in files, and how many are not finite."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"metrics={self.name} takes grey or RGB images (B, C, H, W), not {tuple(images.shape)}"
            )
        if images.dtype == torch.uint8:
            return images, 0
        return to_uint8(images), int((~images.flatten(1).isfinite().all(dim=1)).sum())

    def _warn_of_bias(self, generated: Sample, real: Sample) -> None:
        count = min(generated.count, real.count)
        if "fid" not in self.figures or count > real.dimensions:
            return
        text = f"FID of {real.dimensions} features from {count} images is biased upwards"
        if real.features is not None and len(real.features) >= 2 * FEWEST_SAMPLES:
            at = min(count, len(real.features) // 2)
            scale = fid_of_real_subset(real, at)
            text += f": {at} real images score {scale:.3g} against the other real ones"
        self._say_once(logging.WARNING, f"{text}; compare it only at equal numbers")

    def _say_once(self, level: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.log(level, "metrics: %s", text)


def _count(known: KnownStatistics) -> int:
    """How many images the statistics stand for; as many as one likes where the file does not say."""
    return int(known.stamp.get("real", {}).get("count", 0)) or sys.maxsize


def _default_monitor(figures: Mapping[str, Better]) -> str:
    if "fid" in figures:
        return "fid"
    return next((name for name, better in figures.items() if better != "neither"), "")


def _joined(batches: list[_Batch], *, keep: int) -> Sample:
    """The batches, which are used up, as one sample; an empty one on ranks that gathered nothing."""
    if not batches:
        if Ranks.current().rank == 0:
            raise ValueError("there are no images to evaluate")
        return Sample(count=0, features=torch.empty(0, 0))
    images = _first_images(batches, keep)
    labels = torch.cat([batch.labels for batch in batches])
    features = torch.empty(len(labels), batches[0].features.shape[1])
    first = batches[0].logits
    logits = None if first is None else torch.empty(len(labels), first.shape[1])
    start = 0
    while batches:  # freed one by one: 50,000 x 2,048 features are not held twice
        part = batches.pop(0)
        rows = slice(start, start + len(part.features))
        features[rows] = part.features
        if logits is not None and part.logits is not None:
            logits[rows] = part.logits
        start = rows.stop
    return Sample(
        count=len(features),
        features=features,
        logits=logits,
        labels=labels,
        images=None if images is None else images.__getitem__,
        num_images=0 if images is None else len(images),
    )


def _first_images(batches: Sequence[_Batch], keep: int) -> Tensor | None:
    """The images of the first `keep` rows; each rank kept its own first ones, so together there are more."""
    kept: list[Tensor] = []
    for batch in batches:
        kept.append(batch.images[:keep])
        keep -= len(kept[-1])
        if keep <= 0:
            break
    return torch.cat(kept) if any(len(images) for images in kept) else None


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if len(tensors) == len(parts) else None


def _images(data: RealData, rows: Tensor) -> Images:
    return lambda chosen: data.batch(rows[chosen])


def _whole(cached: dict[str, Tensor] | None, count: int) -> dict[str, Tensor]:
    """What the cache held, where it is of as many images; else nothing."""
    return cached if cached is not None and len(cached["features"]) == count else {}


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


def _sample_state(sample: Sample) -> dict[str, Any]:
    """Plain values and tensors, at most 16 MB of features; with statistics, as a triangle, if some are left out."""
    assert sample.features is not None
    numbers = {repr(key): value for key, value in sample.remembered() if isinstance(value, float)}
    state: dict[str, Any] = {
        "count": sample.count,
        "features": sample.features,
        "labels": sample.labels,
        "classifies": sample.classifies,
        "numbers": numbers,
    }
    kept = STATE_BYTES // (sample.features.shape[1] * sample.features.element_size())
    if len(sample.features) <= kept and sample.known_statistics is None:
        return state
    rows = torch.arange(len(sample.features))
    if len(rows) > kept:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SUBSET_SEED))
        rows = order[:kept].sort().values
    mu, sigma = sample.statistics
    triangle = torch.triu_indices(len(sigma), len(sigma))
    return state | {
        "features": sample.features[rows],
        "labels": None if sample.labels is None else sample.labels[rows],
        "mu": torch.from_numpy(mu),
        "sigma_triangle": torch.from_numpy(sigma)[*triangle],
    }


def _sample_from_state(state: Mapping[str, Any]) -> Sample:
    statistics = None
    if "mu" in state:
        mu, triangle = state["mu"].numpy(), state["sigma_triangle"]
        half = torch.zeros(len(mu), len(mu), dtype=triangle.dtype)
        half[*torch.triu_indices(len(mu), len(mu))] = triangle
        statistics = Statistics(mu, (half + half.triu(1).T).numpy())
    sample = Sample(
        count=state["count"],
        features=state["features"],
        labels=state["labels"],
        classifies=state["classifies"],
        known_statistics=statistics,
    )
    sample.remember(state["numbers"])
    return sample
