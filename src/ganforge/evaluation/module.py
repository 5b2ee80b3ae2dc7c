"""Any network of the user's own as an extractor, named by `_target_` in a YAML file."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.classifier import weights_hash
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor
from ganforge.evaluation.resizing import Preparation
from ganforge.evaluation.weights import WeightsError, read_weights

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Module(Extractor):
    """Features that an `nn.Module` gives of images, and its logits where it gives both.

    The module takes float32 (B, channels, image_size, image_size), (x / 255 - mean) / std of pixels x, and gives
    features (B, D), or feature maps (B, D, h, w) that are averaged over space, or a pair of either and logits
    (B, K). Grey is repeated for three channels, colour averaged for one. For anything else (other inputs, a network
    that is trained on the data) write a subclass of `Extractor`.

    Args:
        module: the network; it is frozen and put into evaluation mode.
        name: as it stands in stamps, cached files and messages.
        image_size: pixels of a side that images are resized to; None leaves them as they are.
        channels: 1 or 3.
        mean, std: of pixels in [0, 1], one number or one for each channel; 0.5 and 0.5 give [-1, 1].
        resize: a protocol of `ganforge.evaluation.resizing`.
        weights_path: a state dict of the module in a .safetensors file or one of `torch.save`; None keeps the
            weights that the module has.
        comparable_with_papers: whether figures made with it may be set beside published ones.

    Raises:
        ValueError: an argument is of the wrong kind or out of its range.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        image_size: int | None,
        channels: int = 3,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        resize: str = "clean",
        weights_path: str | None = None,
        comparable_with_papers: bool = False,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module is a {type(module).__name__}, not a torch.nn.Module")
        if not name:
            raise ValueError("name is empty; it is what stamps and messages call the extractor")
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels}, but images are grey (1) or RGB (3)")
        means, stds = _each(mean, channels, "mean"), _each(std, channels, "std")
        self._preparation = Preparation(resize, image_size, means, stds)
        self._module = module
        self.name = name
        self.weights_path = weights_path
        self.comparable_with_papers = comparable_with_papers
        # The features depend on all of it, and cached ones are found by these words.
        self.resize = f"{self._preparation}, {channels} channels, mean {list(means)}, std {list(stds)}"

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        if self.network is None:
            if self.weights_path is not None:
                self._load(self.weights_path)
            self.network = self._module.eval().requires_grad_(False)
        self.network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self.network is not None
        outputs = self.network(self._preparation(images))
        if isinstance(outputs, Tensor):
            outputs = (outputs,)
        if not isinstance(outputs, tuple | list) or not 1 <= len(outputs) <= 2:
            raise ValueError(
                f"{self.name} gives {_described(outputs)}, not features or a pair of features and logits"
            )
        rows = [self._rows(output, images) for output in outputs]
        return rows[0], rows[1] if len(rows) > 1 else None

    def weights_hash(self) -> str:
        """Of weights and buffers, of the module as printed, and of the source code of its classes."""
        assert self.network is not None
        digest = hashlib.sha256(weights_hash(self.network.state_dict()).encode())
        for text in (_ADDRESS.sub("", repr(self.network)), *_sources(self.network)):
            digest.update(text.encode())
        return digest.hexdigest()

    def _load(self, path: str) -> None:
        try:
            self._module.load_state_dict(read_weights(path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise WeightsError(f"{path} does not fit {self.name}: {reason[:300]}") from error

    def _rows(self, output: object, images: Tensor) -> Tensor:
        """One row of numbers for each image; maps are averaged over space."""
        shape = _described(output)
        if isinstance(output, Tensor) and output.dim() == 4:
            output = output.mean(dim=(2, 3))
        if (
            not isinstance(output, Tensor)
            or not output.is_floating_point()
            or output.dim() != 2
            or len(output) != len(images)
        ):
            raise ValueError(
                f"{self.name} gives {shape} for {len(images)} images, not real numbers of shape "
                f"({len(images)}, D) or ({len(images)}, D, h, w)"
            )
        if not output.isfinite().all():
            raise ValueError(f"{self.name} gives NaN or infinity for some of {len(images)} images")
        return output.float()


def _each(values: float | Sequence[float], channels: int, argument: str) -> tuple[float, ...]:
    each = (values,) * channels if isinstance(values, int | float) else tuple(values)
    if len(each) != channels:
        raise ValueError(f"{argument} is {list(each)}, but there are {channels} channels")
    return each


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"{output.dtype} {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _sources(network: nn.Module) -> Iterator[str]:
    """The code of each class that is not PyTorch's own, or its name where there is no code to be had."""
    for kind in dict.fromkeys(type(module) for module in network.modules()):
        if not kind.__module__.startswith("torch."):
            yield f"{kind.__module__}.{kind.__qualname__}\n"
            try:
                yield inspect.getsource(kind)
            except (OSError, TypeError):
                continue
