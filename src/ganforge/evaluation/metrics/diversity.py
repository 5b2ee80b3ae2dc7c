"""How alike generated images of one class are: MS-SSIM and LPIPS of random pairs.

MS-SSIM: Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs" (arXiv 1610.09585), section
4.2. LPIPS: Zhang et al. 2018 (arXiv 1801.03924), for diversity as in Zhu et al. 2017 (arXiv 1711.11586).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS

from ganforge.evaluation.extractor import exact_float32
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.metrics.rows import enough, fixed_rows, images_of, readable
from ganforge.evaluation.sample import Sample
from ganforge.images import to_float

SMALLEST_SIDES = {5: 176, 4: 99, 3: 44, 2: 22, 1: 3}
"""For each number of scales the shortest side that it takes, with windows of 11 pixels at the coarsest from 11 on."""

LPIPS_SIDE = 64
_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA, _REACH = 1.5, 5
_SEED = 2026
_AT_ONCE = 32  # pairs

Similarity = Callable[[Tensor, Tensor], Tensor]
"""uint8 (B, C, H, W) twice -> float (B,)."""


class MSSSIMDiversity(Metric):
    """`ms_ssim`: mean multi-scale structural similarity of random pairs of generated images of one class.

    From 0 (nothing in common) to 1 (the same image): lower is more diverse. To be read beside `ms_ssim_real`, the same
    for the real images where they are at hand: well above it a generator repeats itself; far below it, it may give
    noise. As many of the five scales as the image size allows: 5 from 176 pixels of the shorter side, 4 from 99, 3 from
    44, 2 from 22, otherwise 1, with the weights of Wang et al. 2003 scaled to sum as all five; the Gaussian window of
    11 pixels shrinks to the largest odd number within images below 11. So figures compare only between images of one
    size. Negative terms count as 0.

    Where both sides have labels, pairs are of one class, equally many of each class with two images on both sides, and
    otherwise of all images.

    Args:
        pairs: pairs of each side in all (the paper takes 100 of each class); at least one of each class.
        num_images: images of each side that the pairs are drawn from.

    Raises:
        ValueError: an argument below 1 or 2; images below 3 pixels; sides of different shapes; no two
            images of a class.
    """

    generated_needs = ("images",)
    real_needs = ()

    def __init__(self, pairs: int = 1000, num_images: int = 2000) -> None:
        self.pairs, self.num_images = _checked("ms_ssim", pairs, num_images)

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"ms_ssim": "lower", "ms_ssim_real": "neither"}

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        return _both_sides("ms_ssim", generated, real, ms_ssim, self.pairs, self.num_images, key=("ms_ssim",))


class LPIPSDiversity(Metric):
    """`lpips_diversity`: mean learned perceptual distance (LPIPS 0.1) of random pairs of generated images of one class.

    0 for equal images; higher is more diverse, and noise is most diverse of all: read it beside
    `lpips_diversity_real`, the same for the real images where they are at hand. Grey is repeated to three channels, and
    images with a side below 64 pixels are enlarged to it, bilinear. Pairs are drawn as `MSSSIMDiversity` draws them.

    Args:
        net: backbone: 'alex', 'vgg' or 'squeeze'. LPIPS's own layers come with torchmetrics.
        pairs: pairs of each side in all; at least one of each class.
        num_images: images of each side that the pairs are drawn from.
        weights_path: file of the backbone's torchvision state dict; None downloads it on first use.

    Raises:
        ValueError: an unknown net; an argument below 1 or 2; weights that cannot be had; no two images of a class.
    """

    generated_needs = ("images",)
    real_needs = ()

    def __init__(
        self,
        net: str = "alex",
        pairs: int = 1000,
        num_images: int = 2000,
        weights_path: str | None = None,
    ) -> None:
        if net not in _BACKBONES:
            raise ValueError(f"lpips_diversity: net is {net!r}, but has to be one of {', '.join(_BACKBONES)}")
        self.net = net
        self.pairs, self.num_images = _checked("lpips_diversity", pairs, num_images)
        self.weights_path = weights_path
        self._network: nn.Module | None = None

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"lpips_diversity": "higher", "lpips_diversity_real": "neither"}

    def prepare(self) -> None:
        if self._network is None:
            with torch.inference_mode(False):
                self._network = lpips_network(self.net, self.weights_path)

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        self.prepare()
        assert self._network is not None
        network = self._network.to(_device(generated))
        key = ("lpips_diversity", self.net, self.weights_path)
        return _both_sides(
            "lpips_diversity",
            generated,
            real,
            lambda one, other: lpips_distance(network, one, other),
            self.pairs,
            self.num_images,
            key,
        )


def _checked(figure: str, pairs: int, num_images: int) -> tuple[int, int]:
    if pairs < 1:
        raise ValueError(f"{figure}: pairs is {pairs}, but has to be at least 1")
    if num_images < 2:
        raise ValueError(f"{figure}: num_images is {num_images}, but has to be at least 2")
    return pairs, num_images


def _device(generated: Sample) -> torch.device:
    return torch.device("cpu") if generated.model is None else generated.model.device


def _both_sides(
    figure: str,
    generated: Sample,
    real: Sample,
    similarity: Similarity,
    pairs: int,
    num_images: int,
    key: tuple[str | None, ...],
) -> dict[str, float]:
    """`figure` of the generated images and `figure`_real of the real ones, if at hand, over the same classes."""
    sides = [generated] if real.images is None else [generated, real]
    labelled = all(side.labels is not None for side in sides)
    rows = [fixed_rows(readable(side, labelled=labelled), num_images) for side in sides]
    for chosen in rows:
        enough(figure, len(chosen), 2)
    shapes = {tuple(images_of(side, chosen[:1]).shape[1:]) for side, chosen in zip(sides, rows, strict=True)}
    if len(shapes) > 1:
        raise ValueError(f"{figure} compares images of one shape, not of {' and '.join(map(str, shapes))}")
    labels = [
        _labels(side, chosen) if labelled else torch.zeros(len(chosen), dtype=torch.int64)
        for side, chosen in zip(sides, rows, strict=True)
    ]
    classes = shared_classes(labels)
    if not classes:
        raise ValueError(f"{figure} needs a class with two images on every side, but there is none")
    device = _device(generated)

    def mean(side: int) -> float:
        drawn = rows[side][draw_pairs(labels[side], classes, pairs)]
        return mean_over_pairs(similarity, sides[side], drawn, device)

    values = {figure: mean(0)}
    if len(sides) > 1:
        values[f"{figure}_real"] = real.once((*key, pairs, num_images, labelled, *classes), lambda: mean(1))
    return values


def _labels(sample: Sample, rows: Tensor) -> Tensor:
    assert sample.labels is not None
    return sample.labels[rows]


def shared_classes(labels: Sequence[Tensor]) -> list[int]:
    """The classes, in order, that occur at least twice in every one of the int64 (n,)."""
    found = []
    for side in labels:
        values, counts = torch.unique(side, return_counts=True)
        found.append(set(values[counts >= 2].tolist()))
    return sorted(set.intersection(*found))


def draw_pairs(labels: Tensor, classes: Sequence[int], pairs: int) -> Tensor:
    """Random pairs of different rows of one class, int64 (P, 2): the same number of every class, P >= pairs.

    Args:
        labels: int64 (n,).
        classes: those to draw from, each at least twice in `labels`.
        pairs: how many in all, rounded up to a multiple of the number of classes.
    """
    generator = torch.Generator().manual_seed(_SEED)
    each = -(-pairs // len(classes))
    drawn = []
    for label in classes:
        members = (labels == label).nonzero()[:, 0]
        first = torch.randint(len(members), (each,), generator=generator)
        further = torch.randint(1, len(members), (each,), generator=generator)
        drawn.append(torch.stack([members[first], members[(first + further) % len(members)]], dim=1))
    return torch.cat(drawn)


@torch.no_grad()
def mean_over_pairs(
    similarity: Similarity, sample: Sample, pairs: Tensor, device: torch.device | str
) -> float:
    """Mean similarity of the images of pairs of rows, int64 (P, 2)."""
    total = 0.0
    with exact_float32(torch.device(device)):
        for part in torch.split(pairs, _AT_ONCE):
            one, other = (images_of(sample, part[:, side]).to(device) for side in (0, 1))
            total += float(similarity(one, other).double().sum())
    return total / len(pairs)


def scales_and_reach(height: int, width: int) -> tuple[int, int]:
    """How many scales MS-SSIM takes of an image, and how far its Gaussian window reaches from the middle, in pixels.

    Raises:
        ValueError: the shorter side is below 3 pixels.
    """
    side = min(height, width)
    for scales, smallest in SMALLEST_SIDES.items():
        if side >= smallest:
            return scales, min(_REACH, (side - 1) // 2)
    raise ValueError(f"ms_ssim needs images of at least 3x3 pixels, not {height}x{width}")


def ms_ssim(one: Tensor, other: Tensor) -> Tensor:
    """Multi-scale structural similarity of images uint8 (B, C, H, W), pair by pair: float32 (B,) in [0, 1].

    prod_j cs_j^b_j · l_M^b_M: contrast and structure at every scale and luminance at the last, M; weights b_j as in
    Wang et al. 2003, scaled to sum as all five. `MSSSIMDiversity` says how many scales.

    Raises:
        ValueError: images below 3 pixels.
    """
    scales, reach = scales_and_reach(*one.shape[-2:])
    total = sum(_BETAS[:scales]) / sum(_BETAS)
    result = multiscale_structural_similarity_index_measure(
        one.float(),
        other.float(),
        sigma=_SIGMA * reach / _REACH,
        kernel_size=2 * reach + 1,
        data_range=255.0,
        betas=tuple(beta / total for beta in _BETAS[:scales]),
        normalize="relu",
        reduction="none",
    )
    return result.clamp(max=1)  # rounding


_BACKBONES = {
    "alex": torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}
"""The torchvision weights that LPIPS 0.1 was fitted on."""


def lpips_network(net: str, weights_path: str | None) -> nn.Module:
    """LPIPS 0.1, frozen: called with images float32 (B, 3, H, W) in [-1, 1] twice it gives (B, 1, 1, 1).

    Args:
        net: 'alex', 'vgg' or 'squeeze'.
        weights_path: file of the backbone's torchvision state dict; None downloads it.

    Raises:
        ValueError: the weights cannot be had, or are not the backbone's.
    """
    weights = _BACKBONES[net]
    file = weights.url.rsplit("/", 1)[-1]
    way_out = f"Give lpips_diversity a file of torchvision's {weights} ({file}) as weights_path=FILE."
    source = weights_path or "their public address"
    try:
        if weights_path is None:
            state = weights.get_state_dict(progress=False, check_hash=True)
        else:
            state = torch.load(weights_path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # a missing file or network, or whatever a damaged file makes the unpickler stumble over
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"lpips_diversity: the weights of {net} cannot be had from {source} "
            f"({type(error).__name__}: {reason}). {way_out}"
        ) from error
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and overwritten
        network = _LPIPS(net=net, pnet_rand=True)  # type: ignore[arg-type]
    try:
        own = network.net.state_dict()
        network.net.load_state_dict({name: state[_torchvision_name(name)] for name in own})
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"lpips_diversity: {source} does not hold the weights of {net}. {way_out}"
        ) from error
    return network.eval().requires_grad_(False)


def _torchvision_name(name: str) -> str:
    """slice2.3.weight or slices.1.3.weight, the layer of LPIPS's backbone, is torchvision's features.3.weight."""
    return "features." + re.sub(r"^slice(s\.)?\d+\.", "", name)


def lpips_distance(network: nn.Module, one: Tensor, other: Tensor) -> Tensor:
    """Learned perceptual distance of images uint8 (B, 1 or 3, H, W), pair by pair: float32 (B,), at least 0."""
    result: Tensor = network(_for_lpips(one), _for_lpips(other))
    return result.flatten()


def _for_lpips(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    x = to_float(images).expand(-1, 3, -1, -1)
    if min(height, width) < LPIPS_SIDE:
        size = (max(height, LPIPS_SIDE), max(width, LPIPS_SIDE))
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    return x
