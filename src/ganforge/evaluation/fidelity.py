"""The pretrained networks that torch-fidelity (Obukhov et al. 2020) has ported: features as it gives them."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA as CLIP_FILES
from torch_fidelity.utils import create_feature_extractor

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor
from ganforge.evaluation.resizing import Preparation
from ganforge.evaluation.weights import check_torchscript, read_weights, said_plainly

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def ways_out(name: str, file: str) -> str:
    """What to do without the network's weights. `file`: where they can be had, and how the file is called."""
    return (
        f"Give a file with metrics={name} metrics.extractor.weights_path=FILE ({file}), or choose metrics=digits "
        "or metrics=domain, whose figures compare runs with one another but not with papers."
    )


class TorchFidelity(Extractor):
    """A network of torch-fidelity, with images resized inside it as TensorFlow 1 did, or before it.

    Grey is repeated to three channels. With resize=tensorflow features and logits are those that torch-fidelity
    gives; other protocols feed its network in float32, past the rounding to uint8.

    Attributes:
        registered: torch-fidelity's name of the network.
        title: the name that messages call it by.
        outputs: what it is asked for: features, and logits where it classifies.
        entry: its layer that takes the resized and normalised image.
        published: the resizing protocols that published figures were made with.
        file: where the weights can be had, in words.

    Args:
        registered: torch-fidelity's name of the network.
        preparation: how images come to the network.
        weights_path: a local file of the weights; None downloads them on first use.
    """

    outputs: ClassVar[tuple[str, ...]]
    entry: ClassVar[str]
    title: str
    published: ClassVar[tuple[str, ...]] = ("tensorflow",)
    file: str

    def __init__(self, registered: str, preparation: Preparation, weights_path: str | None) -> None:
        self.registered = registered
        self.weights_path = weights_path
        self.resize = str(preparation)
        self.comparable_with_papers = preparation.protocol in self.published
        self._preparation = preparation

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        if self.network is None:
            self.network = self._build()
        self.network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self.network is not None
        images = images.expand(-1, 3, -1, -1)
        if self._preparation.protocol == "tensorflow":
            return _pair(self.network(images))
        entry = self.network.get_submodule(self.entry)
        with _entered_by(entry, self._preparation(images)):
            # It demands uint8 and resizes them; one pixel is enough where the layer after that takes our image.
            return _pair(self.network(images.new_zeros(len(images), 3, 1, 1)))

    @abstractmethod
    def check_file(self, path: str, advice: str) -> None:
        """Whether the file can hold the weights; it is opened with fewer limits afterwards.

        Raises:
            WeightsError: it cannot.
        """

    def check_network(self, network: nn.Module) -> None:
        """Whether the weights made the network that was asked for; raises ValueError where not."""

    def _build(self) -> nn.Module:
        advice = ways_out(self.name, self.file)
        if self.weights_path is not None:
            self.check_file(self.weights_path, advice)
        with (
            said_plainly(self.title, self.weights_path or "their public address", advice),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is what CLIP's weights come in
            network: nn.Module = create_feature_extractor(
                self.registered,
                list(self.outputs),
                cuda=False,
                verbose=False,
                feature_extractor_weights_path=self.weights_path,
            )
            self.check_network(network)
        return network


class Vgg16(TorchFidelity):
    """4096 features: VGG-16's second fully connected layer after its ReLU, as precision and recall were defined with.

    Simonyan and Zisserman 2015 (arXiv 1409.1556); Kynkäänniemi et al. 2019 (arXiv 1904.06991).

    Args:
        weights_path: a local file of torchvision's weights; None downloads them on first use.
        resize: a protocol of `ganforge.evaluation.resizing`.
    """

    name = "vgg16"
    title = "VGG-16"
    outputs = ("fc2_relu",)
    entry = "model"
    file = "torchvision's vgg16-397923af.pth from download.pytorch.org/models"

    def __init__(self, weights_path: str | None = None, resize: str = "tensorflow") -> None:
        super().__init__("vgg16", Preparation(resize, 224, IMAGENET_MEAN, IMAGENET_STD), weights_path)

    def check_file(self, path: str, advice: str) -> None:
        read_weights(path, advice)


class Clip(TorchFidelity):
    """The image embedding of CLIP (Radford et al. 2021, arXiv 2103.00020), D = 512 to 1024, in float32.

    Args:
        model: one of `CLIP_MODELS`.
        weights_path: a local file of OpenAI's weights, a TorchScript archive; None downloads them on first use.
        resize: a protocol of `ganforge.evaluation.resizing`.

    Raises:
        ValueError: there is no such model or protocol.
    """

    name = "clip"
    outputs = ("clip",)
    entry = "model.visual"

    def __init__(
        self, model: str = "clip-vit-b-32", weights_path: str | None = None, resize: str = "tensorflow"
    ) -> None:
        if model not in CLIP_MODELS:
            raise ValueError(f"model is {model}; it can be {', '.join(CLIP_MODELS)}")
        size = CLIP_MODELS[model][0]
        super().__init__(model, Preparation(resize, size, CLIP_MEAN, CLIP_STD), weights_path)
        self.title = model
        self.file = f"OpenAI's {CLIP_FILES[model]['filename']}.pt"

    def check_file(self, path: str, advice: str) -> None:
        check_torchscript(path, advice)

    def check_network(self, network: nn.Module) -> None:
        visual: Any = network.get_submodule(self.entry)
        kernel = visual.conv1.weight.shape
        found = (visual.input_resolution, visual.output_dim, kernel[0], kernel[-1])
        if found != CLIP_MODELS[self.registered]:
            raise ValueError(
                f"they are of another model (image size, dimensions, first convolution's channels and size "
                f"{found}, not {CLIP_MODELS[self.registered]})"
            )

    def stamp(self) -> dict[str, str | int | float]:
        return {"model": self.registered}


CLIP_MODELS = {
    "clip-rn50": (224, 1024, 32, 3),
    "clip-rn101": (224, 512, 32, 3),
    "clip-rn50x4": (288, 640, 40, 3),
    "clip-rn50x16": (384, 768, 48, 3),
    "clip-rn50x64": (448, 1024, 64, 3),
    "clip-vit-b-32": (224, 512, 768, 32),
    "clip-vit-b-16": (224, 512, 768, 16),
    "clip-vit-l-14": (224, 768, 1024, 14),
    "clip-vit-l-14-336px": (336, 768, 1024, 14),
}
"""Model -> image size, dimensions of the embedding, channels and size of the first convolution."""


def _pair(outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    return outputs[0], outputs[1] if len(outputs) > 1 else None


@contextmanager
def _entered_by(layer: nn.Module, x: Tensor) -> Iterator[None]:
    """The layer takes `x` whatever it is called with."""
    handle = layer.register_forward_pre_hook(lambda _, __: (x,))
    try:
        yield
    finally:
        handle.remove()
