"""The Inception v3 of the published FID (Heusel et al. 2017), as torch-fidelity ported it from TensorFlow."""

from __future__ import annotations

import torch
from torch import nn

from ganforge.evaluation.fidelity import TorchFidelity
from ganforge.evaluation.resizing import Preparation
from ganforge.evaluation.weights import read_weights


class Inception(TorchFidelity):
    """torch-fidelity's 'inception-v3-compat': 2048 pooled features and `logits_unbiased` of 1008 classes.

    Images are resized to 299x299 the way TensorFlow 1 did, or with resize=clean as clean-fid does (Parmar et al.
    2022, arXiv 2104.11222), which uses the same weights. In channels_last the features differ by 4e-7 (relative
    norm), no more than between batch sizes, and a CPU is 1.4 times as fast.

    Args:
        weights_path: a local file of the weights; None downloads them on first use.
        resize: a protocol of `ganforge.evaluation.resizing`.

    Raises:
        ValueError: there is no such protocol.
    """

    name = "inception"
    title = "Inception"
    outputs = ("2048", "logits_unbiased")
    entry = "Conv2d_1a_3x3"
    published = ("tensorflow", "clean")
    file = "torch-fidelity's release v0.2.0 has it: weights-inception-2015-12-05-6726825d.pth"

    def __init__(self, weights_path: str | None = None, resize: str = "tensorflow") -> None:
        half = (128 / 255,) * 3
        super().__init__("inception-v3-compat", Preparation(resize, 299, half, half), weights_path)

    def check_file(self, path: str, advice: str) -> None:
        read_weights(path, advice)

    def _build(self) -> nn.Module:
        return super()._build().to(memory_format=torch.channels_last)
