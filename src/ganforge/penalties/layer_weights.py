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

    A layer is one of torch.nn's, or a module with a `weight` of its own that has rows, such as a modulated convolution.

    Raises:
        ValueError: there are none.
    """
    weights: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, LAYERS) or (embeddings and isinstance(module, nn.Embedding)):
            weights += [parameter for parameter in module.parameters() if parameter.ndim >= 2]
        elif not isinstance(module, nn.Embedding):
            own = module._parameters.get("weight")
            weights += [own] if own is not None and own.ndim >= 2 else []
    if not weights:
        raise ValueError(
            f"{type(network).__module__}.{type(network).__name__} has no convolution, linear layer or embedding, "
            "whose weights a penalty could be taken of; leave that penalty out"
        )
    return weights
