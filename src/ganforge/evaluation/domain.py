"""Features of a small classifier trained on the data's own labels, for data far from ImageNet and digits."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.classifier import (
    ARCHITECTURE_VERSION,
    NUM_FEATURES,
    SmallClassifier,
    accuracy,
    build_classifier,
    train_classifier,
)
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor, exact_float32
from ganforge.progress import show_progress

LARGEST_SIZE = 32
HELD_OUT_SHARE, LARGEST_HELD_OUT = 0.1, 5000
SEED = 2026


class Domain(Extractor):
    """64 features and the data's own classes, from a classifier at the images' size, at most 32x32.

    It is trained on first use and cached under the data's fingerprint, so that all runs on one data set share
    it; one that a checkpoint brings is kept for other data of as many classes, such as another split. A tenth of
    the images (at most 5,000) is held out; the accuracy on them says how far to trust the figures, and is stamped.

    Args:
        steps: optimizer steps of 128 images; 600 of 32x32 RGB take about 50 seconds of one CPU thread.
    """

    name = "domain"

    def __init__(self, steps: int = 600) -> None:
        self.steps = steps
        self.network: SmallClassifier | None = None
        self.held_out_accuracy = float("nan")
        self._trained_on = ""
        self._from_checkpoint = False

    @property
    def resize(self) -> str:  # type: ignore[override]
        size = self.network.image_size if self.network else LARGEST_SIZE
        return f"{size}x{size}, bilinear with antialiasing"

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        if data is not None and not self._serves(data):
            self._check(data)
            self._load_or_train(data, device, cache)
        if self.network is None:
            raise ValueError(
                "metrics=domain needs the labelled data set, or a checkpoint of a run that used it; "
                "give real=..., or choose metrics=digits or metrics=inception."
            )
        self.network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert self.network is not None
        features, logits = self.network(images)
        return features, logits

    def classifies(self, data: RealData) -> bool:
        return True

    def state(self) -> dict[str, Any]:
        assert self.network is not None
        return {
            "weights": {name: tensor.cpu().clone() for name, tensor in self.network.state_dict().items()},
            "image_size": self.network.image_size,
            "channels": self.network.channels,
            "num_classes": self.network.classify.out_features,
            "held_out_accuracy": self.held_out_accuracy,
            "trained_on": self._trained_on,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        network = build_classifier(state["image_size"], state["channels"], state["num_classes"], seed=SEED)
        network.load_state_dict(state["weights"])
        self.network = network.eval().requires_grad_(False)
        self.held_out_accuracy = state["held_out_accuracy"]
        self._trained_on = state["trained_on"]
        self._from_checkpoint = True

    def stamp(self) -> dict[str, str | int | float]:
        return {
            "classifier_trained_on": self._trained_on,
            "classifier_held_out_accuracy": self.held_out_accuracy,
            "classifier_version": ARCHITECTURE_VERSION,
        }

    def _serves(self, data: RealData) -> bool:
        """Whether the network is of this data, or came with a checkpoint and fits it."""
        if self.network is None:
            return False
        fits = (self.network.channels, self.network.classify.out_features) == (
            data.shape[0],
            data.num_classes,
        )
        return self._trained_on == data.fingerprint() or (self._from_checkpoint and fits)

    def _check(self, data: RealData) -> None:
        if data.num_classes < 2:
            raise ValueError(
                f"metrics=domain trains a classifier on the data's labels, but {data.name} has "
                f"{data.num_classes} classes; choose metrics=inception, metrics=digits or metrics=none."
            )
        if len(data) < 2 * data.num_classes:
            raise ValueError(
                f"metrics=domain cannot learn {data.num_classes} classes from the {len(data)} images of "
                f"{data.name}; choose metrics=inception, metrics=digits or metrics=none."
            )

    def _load_or_train(self, data: RealData, device: torch.device | str, cache: Cache) -> None:
        channels, height, width = data.shape
        size = min(LARGEST_SIZE, max(height, width, 4))
        fingerprint = data.fingerprint()
        network = build_classifier(size, channels, data.num_classes, seed=SEED)
        path = cache.path(
            "domain",
            ARCHITECTURE_VERSION,
            NUM_FEATURES,
            self.steps,
            fingerprint,
            size,
            channels,
            data.num_classes,
        )
        cached = cache.load(path)
        if cached is None:
            self.held_out_accuracy = self._train(network, data, device)
            cache.save(
                path,
                network.state_dict()
                | {"held_out_accuracy": torch.tensor(self.held_out_accuracy, dtype=torch.float64)},
            )
        else:
            self.held_out_accuracy = float(cached.pop("held_out_accuracy"))
            network.load_state_dict(cached)
        self.network = network.eval().requires_grad_(False)
        self._trained_on, self._from_checkpoint = fingerprint, False

    def _train(self, network: SmallClassifier, data: RealData, device: torch.device | str) -> float:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SEED))
        held_out = max(1, min(LARGEST_HELD_OUT, int(HELD_OUT_SHARE * len(data))))

        def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
            return data.batch(rows), data.labels[rows]

        bar = show_progress(range(self.steps), self.steps, f"metrics=domain: a classifier of {data.name}")
        with exact_float32(torch.device(device)):
            with torch.enable_grad(), contextlib.closing(bar):
                train_classifier(
                    network,
                    order[held_out:],
                    fetch,
                    steps=self.steps,
                    device=device,
                    seed=SEED,
                    tick=lambda: next(bar),
                )
            result = accuracy(network, order[:held_out], fetch, device)
        Console(stderr=True).print(
            f"metrics=domain: {result:.1%} of {held_out} held-out images of {data.name} classified rightly"
        )
        return result
