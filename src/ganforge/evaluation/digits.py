"""Features of a small classifier of handwritten digits that the package ships: seconds, and no download."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.classifier import SmallClassifier
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor
from ganforge.evaluation.train_digits_classifier import SHIPPED_WEIGHTS

TORCH_FIDELITY_NAME = "ganforge-digits"


class DigitsFeatures(FeatureExtractorBase):  # type: ignore[misc]
    """The shipped classifier as torch-fidelity wants it; provides '64' (the embedding) and 'logits'.

    `torch_fidelity.calculate_metrics(feature_extractor="ganforge-digits", ...)` works once this is imported.
    """

    def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
        super().__init__(name, features_list)
        self.classifier = SmallClassifier(image_size=8, channels=1, num_classes=10)
        self.classifier.load_state_dict(load_file(SHIPPED_WEIGHTS))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, 1 or 3, H, W) -> the requested features, in the order of the request."""
        features, logits = self.classifier(images)
        provided = {"64": features, "logits": logits}
        return tuple(provided[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "64", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "64"

    @staticmethod
    def can_be_compiled() -> bool:
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 1, 8, 8, dtype=torch.uint8)


if TORCH_FIDELITY_NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(TORCH_FIDELITY_NAME, DigitsFeatures)


class Digits(Extractor):
    """64 features and 10 logits of images averaged to grey and resized to 8x8; meant for digits."""

    name = "digits"
    resize = "grey, 8x8, bilinear with antialiasing"

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        if self.network is None:
            with torch.random.fork_rng(devices=[]):
                self.network = create_feature_extractor(
                    TORCH_FIDELITY_NAME, ["64", "logits"], cuda=False, verbose=False
                )
        assert self.network is not None
        self.network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert self.network is not None
        features, logits = self.network(images)
        return features, logits

    def classifies(self, data: RealData) -> bool:
        return [name[:1] for name in data.class_names] == list("0123456789")
