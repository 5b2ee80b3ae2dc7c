"""Modes covered, share of high-quality samples and reverse KL on mixtures of Gaussians.

As VEEGAN (Srivastava et al. 2017, section 4.1) and PacGAN (Lin et al. 2018, section 4.1) count them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ganforge.evaluation.evaluator import Batches, Evaluator, KnownStatistics, RealData
from ganforge.evaluation.metrics.metric import Better
from ganforge.evaluation.ranks import Ranks
from ganforge.evaluation.sample import Model
from ganforge.evaluation.stamp import Stamp, versions

HIGH_QUALITY_STDS = 3.0


class Mixture(Protocol):
    """What this evaluator needs of a data set of vectors."""

    centres: Tensor
    std: float


class MixtureEvaluator(Evaluator):
    """Figures against the known modes of the data; no real sample is read.

    Args:
        num_samples: samples of an evaluation during training; the papers take 2,500.
        final_num_samples: samples of the last one.
    """

    name = "mixture"
    figures: Mapping[str, Better] = {
        "modes_covered": "higher",
        "high_quality": "higher",
        "reverse_kl": "lower",
        "class_consistency": "higher",
    }
    monitor = "reverse_kl"

    def __init__(self, num_samples: int = 2500, final_num_samples: int = 2500) -> None:
        self.num_samples = num_samples
        self.final_num_samples = final_num_samples
        self._reference: dict[str, Any] = {}

    def prepare(
        self,
        data: RealData | KnownStatistics | None,
        device: torch.device | str,
        held_out: RealData | None = None,
    ) -> None:
        if data is None:
            return
        if not hasattr(data, "centres") or not hasattr(data, "std"):
            raise ValueError(
                f"metrics=mixture needs data with known modes, such as data=gaussian_ring, not {data.name}; "
                "choose metrics=inception, metrics=domain or metrics=digits for images, or metrics=none."
            )
        assert not isinstance(data, KnownStatistics)
        mixture = cast(Mixture, data)
        self._reference = {
            "centres": mixture.centres.detach().cpu().double(),
            "std": float(mixture.std),
            "source": data.name,
            "fingerprint": data.fingerprint(),
            "classifies": data.num_classes == len(mixture.centres),
        }

    def evaluate(
        self, batches: Batches, *, conditional: bool, model: Model | None = None
    ) -> dict[str, float]:
        if not self._reference:
            raise ValueError(
                "there are no modes to compare with: give real=..., or a checkpoint that holds them"
            )
        ranks = Ranks.current()
        pairs = ranks.gather([(samples.detach().cpu().double(), labels.cpu()) for samples, labels in batches])
        return ranks.from_first(self._score(pairs, conditional) if ranks.rank == 0 else None)

    def _score(self, pairs: list[tuple[Tensor, Tensor]], conditional: bool) -> dict[str, float]:
        if not pairs:
            raise ValueError("there are no samples to evaluate")
        samples = torch.cat([pair[0] for pair in pairs])
        centres = self._reference["centres"]
        if samples.shape[1:] != centres.shape[1:]:
            raise ValueError(
                f"metrics=mixture takes vectors (B, {centres.shape[1]}), not samples of shape "
                f"{tuple(samples.shape)}"
            )
        figures = mode_figures(samples, centres, self._reference["std"])
        if conditional and self._reference["classifies"]:
            asked = torch.cat([pair[1] for pair in pairs])
            nearest = torch.cdist(samples, centres).argmin(dim=1)
            figures["class_consistency"] = float((nearest == asked).double().mean())
        return figures

    def state(self) -> dict[str, Any]:
        return {"name": self.name, **self._reference} if self._reference else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        if state["name"] != self.name:
            raise ValueError(
                f"the checkpoint's reference was made with metrics={state['name']}: choose that, not mixture."
            )
        if not self._reference:  # data that is there goes before what a checkpoint remembers of it
            self._reference = {key: value for key, value in state.items() if key != "name"}

    def stamp(self) -> Stamp:
        real = {}
        if self._reference:
            real = {
                "name": self._reference["source"],
                "fingerprint": self._reference["fingerprint"],
                "modes": len(self._reference["centres"]),
            }
        return {
            "extractor": {"name": self.name, "comparable_with_papers": self.comparable_with_papers},
            "metrics": {"mixture": {"high_quality_stds": HIGH_QUALITY_STDS}},
            "real": real,
            "versions": versions(),
        }


def mode_figures(samples: Tensor, centres: Tensor, std: float) -> dict[str, float]:
    """Each sample belongs to its nearest centre, and is of high quality within 3 std of it.

    high_quality: share of samples of high quality.
    modes_covered: number of modes with at least one sample of high quality.
    reverse_kl: KL(p || q) = sum_k p_k log(p_k K) in nats, p the shares of *all* finite samples among the K
    modes, q uniform, as the data's modes are. 0 when balanced, log K when all samples sit at one mode.

    Args:
        samples: float (N, D); rows that are not finite count as junk of no mode.
        centres: float (K, D).
        std: standard deviation of a mode along each axis.
    """
    finite = samples.isfinite().all(dim=1)
    distance, nearest = torch.cdist(samples[finite], centres).min(dim=1)
    good = distance <= HIGH_QUALITY_STDS * std
    counts = nearest.bincount(minlength=len(centres)).double()
    shares = counts / counts.sum()  # NaN without any finite sample
    return {
        "modes_covered": float(len(torch.unique(nearest[good]))),
        "high_quality": float(good.sum()) / len(samples),
        "reverse_kl": float(torch.special.xlogy(shares, shares * len(centres)).sum()),
    }
