"""The weights of a network's layers, which penalties on parameters are taken of."""

from __future__ import annotations

from torch import Tensor, nn

LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def layer_weights(network: nn.Module, embeddings: bool = True) -> list[Tensor]:
    """The weights (rows, ...) of the layers, parametrised or not; biases, norms and the like stay out.

    Raises:
        ValueError: there are none.
    """
    kinds = (*LAYERS, nn.Embedding) if embeddings else LAYERS
    layers = (module for module in network.modules() if isinstance(module, kinds))
    weights: list[Tensor] = [
        parameter for layer in layers for parameter in layer.parameters() if parameter.ndim >= 2
    ]
    if not weights:
        raise ValueError(
            f"{type(network).__module__}.{type(network).__name__} has no convolution, linear layer or embedding of "
            "torch.nn, whose weights a penalty could be taken of; leave that penalty out"
        )
    return weights
