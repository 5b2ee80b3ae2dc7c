"""Equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1): N(0, 1) weights, scaled when used."""

from __future__ import annotations

from math import sqrt
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.networks.heads.head import Layer


class EqualizedLinear(nn.Linear):
    """x W^T c / sqrt(in) + c b with W of N(0, 1) / c: Adam's steps are equally large for all layers, times c.

    Args:
        initial_bias: what is added at first.
        learning_rate: c, the layer's share of the learning rate.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        initial_bias: float = 0.0,
        learning_rate: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.learning_rate = learning_rate
        self.scale = learning_rate / sqrt(in_features)
        nn.init.normal_(self.weight, std=1 / learning_rate)
        if bias:
            nn.init.constant_(self.bias, initial_bias / learning_rate)

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.learning_rate
        return F.linear(input, self.weight * self.scale, bias)


class EqualizedConv2d(nn.Conv2d):
    """A convolution with weights of N(0, 1), divided by sqrt(in_channels · kernel²) when used, and biases of 0."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.scale = 1 / sqrt(in_channels * kernel_size**2)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualizedEmbedding(nn.Embedding):
    """An embedding with weights of N(0, 1), divided by sqrt(length) when used."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.scale = 1 / sqrt(embedding_dim)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.scale


def equalized(layer: Layer) -> Layer:
    """The equalised layer of the same shape, for the head of a network that has such layers."""
    made: Any = (
        EqualizedEmbedding(layer.num_embeddings, layer.embedding_dim)
        if isinstance(layer, nn.Embedding)
        else EqualizedLinear(layer.in_features, layer.out_features, layer.bias is not None)
    )
    return cast(Layer, made)
