"""Several ranks play as one: what each computed on its share of the batch is averaged as one flat buffer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ganforge.evaluation.ranks import Ranks


def average_gradients_(parameters: Sequence[nn.Parameter], also: Sequence[Tensor] = ()) -> None:
    """Each parameter's gradient becomes its mean over the ranks; nothing happens where this process is alone.

    Every rank has an equal share of the batch, so the mean of the shares' gradients is the gradient of the whole
    batch's mean loss. A gradient that only some ranks have counts as 0 on the others; one that no rank has stays None.

    Args:
        parameters: of the player that steps, in the same order on all ranks.
        also: floating-point tensors that are averaged in the same message. Batch norm's running statistics: their mean
            is made of every rank's images, where those of rank 0 would be of its own share alone.
    """
    if Ranks.current().size == 1 or not parameters:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    anywhere = here.to(parameters[0].device, non_blocking=True)
    average_([*gradients, *also, anywhere])
    if here.all():  # the usual case asks nothing of the device
        return
    for parameter, gradient, share in zip(parameters, gradients, anywhere.tolist(), strict=True):
        if share > 0:
            parameter.grad = gradient


@torch.no_grad()
def average_(tensors: Sequence[Tensor]) -> None:
    """Each floating-point tensor becomes its mean over the ranks, all in one message; in float32 at least."""
    size = Ranks.current().size
    if size == 1:
        return
    flat = torch.cat([t.reshape(-1).to(torch.promote_types(t.dtype, torch.float32)) for t in tensors])
    dist.all_reduce(flat)
    flat /= size
    parts = torch.split(flat, [t.numel() for t in tensors])
    torch._foreach_copy_(list(tensors), [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])
