"""Perceptual path length: how far an image moves for a small step of z.

Karras et al. 2019, "A Style-Based Generator Architecture for GANs", section 4.1 (arXiv 1812.04948), computed by
torch-fidelity.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_fidelity.generative_model_modulewrapper import GenerativeModelModuleWrapper
from torch_fidelity.metric_ppl import KEY_METRIC_PPL_RAW, calculate_ppl
from torch_fidelity.registry import (
    INTERPOLATION_REGISTRY,
    SAMPLE_SIMILARITY_REGISTRY,
    register_sample_similarity,
)
from torch_fidelity.sample_similarity_base import SampleSimilarityBase
from torch_fidelity.utils import create_sample_similarity

from ganforge.evaluation.extractor import exact_float32
from ganforge.evaluation.metrics.metric import Better, Metric
from ganforge.evaluation.sample import Model, Sample

PIXELS = "ganforge-pixels"


class PathLength(Metric):
    """`ppl`: mean of d(G(z), G(z')) / epsilon² over random steps; `ppl_std`: the standard deviation over the steps.

    z and a second end are normal; z' lies epsilon of the way from one to the other, and d is the similarity.
    Of the lengths only those between the 1st and the 99th percentile count. At least 0; lower is smoother, but a
    generator that gives one image has 0. A conditional model takes one random label for both ends of a step.

    Images go to the similarity as float32 in 0..255, as in the paper. Rounded to uint8, as is torch-fidelity's habit,
    a step of 1e-4 shows only in the few pixels that change by a whole level, and the figure says more of the rounding
    than of the generator; so the two do not compare. Nor do figures of other similarities, sizes or spaces: the
    paper's is of 100,000 steps with LPIPS in VGG16.

    Args:
        num_samples: steps.
        epsilon: length of a step as a share of the way between the ends, in (0, 1].
        interpolation: the way: 'lerp', 'slerp_any' or 'slerp_unit' of torch-fidelity.
        similarity: a sample similarity registered with torch-fidelity: 'lpips-vgg16' downloads its weights on first
            use; 'ganforge-pixels', the mean squared difference of pixels in [-1, 1], needs none.
        resize: side in pixels to which 'lpips-vgg16' resizes; null keeps the size. 'ganforge-pixels' never resizes.
        batch_size: steps at a time.
        seed: of z, the ends and the labels.

    Raises:
        ValueError: an argument out of range; weights that cannot be had; a length that is not finite.
    """

    generated_needs = ("model",)
    real_needs = ()
    fewest = 0

    def __init__(
        self,
        num_samples: int = 5000,
        epsilon: float = 1e-4,
        interpolation: str = "lerp",
        similarity: str = "lpips-vgg16",
        resize: int | None = 64,
        batch_size: int = 64,
        seed: int = 2020,
    ) -> None:
        for name, value in (("num_samples", num_samples), ("batch_size", batch_size), ("resize", resize)):
            if value is not None and value < 1:
                raise ValueError(f"ppl: {name} is {value}, but has to be at least 1")
        if not 0 < epsilon <= 1:
            raise ValueError(f"ppl: epsilon is {epsilon}, but has to be above 0 and at most 1")
        for name, chosen, known in (
            ("interpolation", interpolation, INTERPOLATION_REGISTRY),
            ("similarity", similarity, SAMPLE_SIMILARITY_REGISTRY),
        ):
            if chosen not in known:
                raise ValueError(f"ppl: {name} is {chosen!r}, but has to be one of {', '.join(known)}")
        self.num_samples = num_samples
        self.epsilon = float(epsilon)
        self.interpolation = interpolation
        self.similarity = similarity
        self.resize = resize
        self.batch_size = batch_size
        self.seed = seed

    @property
    def figures(self) -> Mapping[str, Better]:
        return {"ppl": "lower", "ppl_std": "neither"}

    def prepare(self) -> None:
        try:
            with torch.random.fork_rng(devices=[]):
                create_sample_similarity(
                    self.similarity,
                    sample_similarity_resize=self.resize,
                    sample_similarity_dtype="float32",
                    cuda=False,
                )
        except _NOT_TO_BE_HAD as error:
            raise self._no_weights(error) from error

    def lacks(self, generated: Sample, real: Sample) -> str | None:
        if generated.model is not None and generated.model.latent_dim == 0:
            return "the generated side's model makes no images from a z"
        return super().lacks(generated, real)

    def __call__(self, generated: Sample, real: Sample) -> dict[str, float]:
        assert generated.model is not None
        lengths = self._lengths(generated.model)
        if not np.isfinite(lengths).all():
            raise ValueError("ppl: a path length is not finite; does the model give images that are not?")
        lengths = within_percentiles(lengths)
        return {"ppl": float(lengths.mean()), "ppl_std": float(lengths.std())}

    def _no_weights(self, error: Exception) -> ValueError:
        return ValueError(
            f"ppl: the weights of {self.similarity} cannot be had: {error}. Put weights-vgg16-lpips.pth of "
            "torch-fidelity's release v0.2.0 and torchvision's vgg16-397923af.pth into "
            f"{torch.hub.get_dir()}/checkpoints, or choose similarity={PIXELS}."
        )

    def _lengths(self, model: Model) -> NDArray[np.float64]:
        """d / epsilon² of every step, float64 (num_samples,)."""
        wrapped = GenerativeModelModuleWrapper(
            PixelModel(model), z_size=model.latent_dim, z_type="normal", num_classes=model.num_classes
        )
        try:
            # torch-fidelity's own cut by percentiles asks NumPy for an argument that NumPy 2 has no more.
            with _undisturbed(model.device):
                result = calculate_ppl(
                    1,
                    input1=wrapped,
                    input1_model_z_size=model.latent_dim,
                    input1_model_num_classes=model.num_classes,
                    input1_model_num_samples=self.num_samples,
                    ppl_epsilon=self.epsilon,
                    ppl_z_interp_mode=self.interpolation,
                    ppl_sample_similarity=self.similarity,
                    ppl_sample_similarity_resize=self.resize,
                    ppl_sample_similarity_dtype="float32",
                    ppl_discard_percentile_lower=None,
                    ppl_discard_percentile_higher=None,
                    ppl_reduction="none",
                    batch_size=self.batch_size,
                    rng_seed=self.seed,
                    cuda=model.device.type == "cuda",
                    verbose=False,
                )
        except _NOT_TO_BE_HAD as error:
            raise self._no_weights(error) from error
        lengths: NDArray[np.float64] = result[KEY_METRIC_PPL_RAW].astype(np.float64)
        return lengths


_NOT_TO_BE_HAD = (OSError, HTTPException, EOFError, pickle.UnpicklingError)


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Exact float32 on the model's own device, and the global random numbers as they were afterwards."""
    cuda = device.type == "cuda"
    here = torch.cuda.device(device) if cuda else contextlib.nullcontext()
    with here, exact_float32(device), torch.random.fork_rng(devices=[device] if cuda else []):
        yield


class PixelModel(nn.Module):
    """A model's images as torch-fidelity's similarities take them: float32 (B, 3, H, W) in 0..255, not rounded."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        # Not the model itself: as a part of this one it would be moved and switched to evaluation with it.
        self.generate, self.device = model.generate, model.device

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z float32 (B, latent_dim), labels int64 (B,) or None -> images on z's device."""
        if labels is None:
            labels = torch.zeros(len(z), dtype=torch.int64)
        images = self.generate(z.to(self.device), labels.to(self.device))
        pixels = (images.float() + 1) * 127.5
        return pixels.expand(-1, 3, -1, -1).to(z.device) if pixels.shape[1] == 1 else pixels.to(z.device)


class PixelSimilarity(SampleSimilarityBase):  # type: ignore[misc]
    """Mean squared difference of pixels in [-1, 1]: no weights. `ppl_sample_similarity="ganforge-pixels"`."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Images in 0..255 (B, C, H, W) twice -> float64 (B,)."""
        return ((one.double() - other.double()) / 127.5).square().flatten(1).mean(dim=1)


if PIXELS not in SAMPLE_SIMILARITY_REGISTRY:
    register_sample_similarity(PIXELS, PixelSimilarity)


def within_percentiles(
    values: NDArray[np.float64], lowest: float = 1, highest: float = 99
) -> NDArray[np.float64]:
    """The values from the `lowest` to the `highest` percentile, each rounded outwards to a value."""
    low = np.percentile(values, lowest, method="lower")
    high = np.percentile(values, highest, method="higher")
    return values[(values >= low) & (values <= high)]
