"""Train the classifier that the package ships for `metrics=digits`.

python -m ganforge.evaluation.train_digits_classifier [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from ganforge.evaluation.classifier import (
    SmallClassifier,
    accuracy,
    build_classifier,
    train_classifier,
    weights_hash,
)

SEED = 2026
STEPS = 1500
SHIPPED_WEIGHTS = Path(__file__).with_name("digits.safetensors")


def digits_images() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: uint8 (1797, 1, 8, 8), scaled from 0..16 to 0..255; labels int64 (1797,)."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(digits.target.astype(np.int64))


def digits_split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows to train on (80%) and rows held out (20%), stratified by label, always the same."""
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels.numpy(), random_state=SEED
    )
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(held_out))


def train() -> tuple[SmallClassifier, float]:
    """The classifier and its accuracy on the rows held out. About half a minute on one thread."""
    images, labels = digits_images()
    rows, held_out = digits_split(labels)

    def fetch(chosen: Tensor) -> tuple[Tensor, Tensor]:
        return images[chosen], labels[chosen]

    classifier = build_classifier(image_size=8, channels=1, num_classes=10, seed=SEED)
    train_classifier(classifier, rows, fetch, steps=STEPS, device="cpu", seed=SEED)
    return classifier, accuracy(classifier, held_out, fetch, "cpu")


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED_WEIGHTS
    classifier, held_out_accuracy = train()
    weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    save_file(weights, path, metadata={"held_out_accuracy": f"{held_out_accuracy:.4f}", "seed": str(SEED)})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, sha256 of the weights {weights_hash(weights)[:12]}")
    print(f"held-out accuracy {held_out_accuracy:.4f}")


if __name__ == "__main__":
    main()
