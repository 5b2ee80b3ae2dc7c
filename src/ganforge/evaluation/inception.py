"""The Inception v3 of the published FID (Heusel et al. 2017), as torch-fidelity ported it from TensorFlow."""

from __future__ import annotations

import pickle
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.utils import create_feature_extractor

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor

_WAYS_OUT = (
    "Give a file with metrics=inception metrics.extractor.weights_path=FILE (torch-fidelity's release v0.2.0 has it: "
    "weights-inception-2015-12-05-6726825d.pth), or choose metrics=digits or metrics=domain, "
    "whose figures compare runs with one another but not with papers."
)


class Inception(Extractor):
    """torch-fidelity's 'inception-v3-compat': 2048 pooled features and `logits_unbiased` of 1008 classes.

    Images are resized to 299x299 the way TensorFlow 1 did; grey is repeated to three channels. In
    channels_last the features differ by 4e-7 (relative norm), no more than between batch sizes, and a CPU is
    1.4 times as fast.

    Args:
        weights_path: a local file of the weights; None downloads them on first use.
    """

    name = "inception"
    comparable_with_papers = True
    resize = "299x299, bilinear as in TensorFlow 1"

    def __init__(self, weights_path: str | None = None) -> None:
        self.weights_path = weights_path

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        if self.network is None:
            self.network = self._build().to(memory_format=torch.channels_last)
        self.network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert self.network is not None
        features, logits = self.network(images.expand(-1, 3, -1, -1))
        return features, logits

    def _build(self) -> torch.nn.Module:
        if self.weights_path is not None:
            self._check_file(Path(self.weights_path))
        try:
            with torch.random.fork_rng(devices=[]):
                network: torch.nn.Module = create_feature_extractor(
                    "inception-v3-compat",
                    ["2048", "logits_unbiased"],
                    cuda=False,
                    verbose=False,
                    feature_extractor_weights_path=self.weights_path,
                )
        except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            source = self.weights_path or "their public address"
            raise ValueError(
                f"Inception's weights cannot be had from {source}: {error}. {_WAYS_OUT}"
            ) from error
        return network

    def _check_file(self, path: Path) -> None:
        """torch-fidelity unpickles without limits; a file that only holds tensors passes here."""
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the unpickler stumble over
            reason = next(iter(str(error).splitlines()), "")
            raise ValueError(
                f"{path} is not a readable file of weights ({type(error).__name__}: {reason}). {_WAYS_OUT}"
            ) from error
