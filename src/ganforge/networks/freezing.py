"""FreezeD (Mo, Cho & Shin 2020, arXiv:2002.10964): a discriminator whose first blocks are not trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn


def freeze_(network: nn.Module, what: int | Sequence[str]) -> list[nn.Module]:
    """Takes the first `what` blocks, or the modules of these names, out of training, and returns their modules.

    Their parameters ask for no gradient. Their buffers (batch norm's statistics, spectral norm's vectors) stay as they
    are only as long as the modules are in evaluation mode, which is the caller's to see to.

    Raises:
        ValueError: no such block or module, or nothing would be left to train.
    """
    if isinstance(what, int):
        each = blocks(network)
        if not 0 <= what < len(each):
            raise ValueError(
                f"{what} blocks cannot be frozen of the {len(each)} that there are, as the last one has to learn: "
                f"{', '.join(names[0] for names in each)}"
            )
        names = [name for block in each[:what] for name in block]
    else:
        names = list(what)
        known = [
            name
            for name, module in network.named_modules()
            if name and any(True for _ in module.parameters())
        ]
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is no part with weights: there are {', '.join(known[:20])}")
    modules = [network.get_submodule(name) for name in names]
    frozen = {id(parameter) for module in modules for parameter in module.parameters()}
    if all(id(parameter) in frozen for parameter in network.parameters()):
        raise ValueError(f"with {', '.join(names)} frozen there is nothing left to train")
    for module in modules:
        module.requires_grad_(False)
    return modules


def blocks(network: nn.Module) -> list[list[str]]:
    """The names of the modules of each block, from the images to the logits.

    A block is a module with weights, lists of modules being opened; one whose parameters are all vectors, such as a
    normalisation, belongs to the block before. The order is that of definition, unless the network gives its own as
    `names_in_order`; one that is made of networks gives its blocks whole, as `blocks_in_order`.
    """
    whole: list[list[str]] | None = getattr(network, "blocks_in_order", None)
    if whole is not None:
        return whole
    own: Sequence[str] | None = getattr(network, "names_in_order", None)
    found: list[list[str]] = []
    for name in own if own is not None else _names(network, ""):
        if found and all(p.ndim < 2 for p in network.get_submodule(name).parameters()):
            found[-1].append(name)
        else:
            found.append([name])
    return found


def blocks_of_part(network: nn.Module, name: str) -> list[list[str]]:
    """The blocks of the network's part of that name, by their names in the network."""
    return [[f"{name}.{inner}" for inner in block] for block in blocks(network.get_submodule(name))]


def _names(network: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _names(child, f"{prefix}{name}.")
        elif any(True for _ in child.parameters()):
            yield f"{prefix}{name}"
