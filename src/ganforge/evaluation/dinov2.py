"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193): self-supervised features that agree best with people.

Stein et al. 2023 (arXiv 2306.04675) compared them with Inception's. The network is written here rather than taken
from a hub: a hub runs code that it downloads, and cannot load a local file of weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.evaluator import RealData
from ganforge.evaluation.extractor import Extractor
from ganforge.evaluation.fidelity import IMAGENET_MEAN, IMAGENET_STD, ways_out
from ganforge.evaluation.resizing import Preparation
from ganforge.evaluation.weights import read_weights, said_plainly

PATCH, GRID, HEAD = 14, 37, 64  # pixels of a patch, patches of a side in training, dimensions of a head
URL = "https://dl.fbaipublicfiles.com/dinov2/{0}/{0}_pretrain.pth"

MODELS = {
    "dinov2-vit-s-14": ("dinov2_vits14", 384, 12, False),
    "dinov2-vit-b-14": ("dinov2_vitb14", 768, 12, False),
    "dinov2-vit-l-14": ("dinov2_vitl14", 1024, 24, False),
    "dinov2-vit-g-14": ("dinov2_vitg14", 1536, 40, True),
}
"""Model -> its official name, width, depth, and whether its feed-forward part is gated."""


class DinoV2(Extractor):
    """The class token after the last norm, D = 384 (S), 768 (B), 1024 (L) or 1536 (g), at 224x224.

    Features are those of torch-fidelity's 'dinov2-vit-*-14', with resize=tensorflow.

    Args:
        model: one of `MODELS`.
        weights_path: a local file of the official weights; None downloads them on first use.
        resize: a protocol of `ganforge.evaluation.resizing`.

    Raises:
        ValueError: there is no such model or protocol.
    """

    name = "dinov2"

    def __init__(
        self, model: str = "dinov2-vit-s-14", weights_path: str | None = None, resize: str = "tensorflow"
    ) -> None:
        if model not in MODELS:
            raise ValueError(f"model is {model}; it can be {', '.join(MODELS)}")
        self.model = model
        self.weights_path = weights_path
        self._preparation = Preparation(resize, 224, IMAGENET_MEAN, IMAGENET_STD)
        self.resize = str(self._preparation)
        self.comparable_with_papers = resize == "tensorflow"

    def prepare(self, data: RealData | None, device: torch.device | str, cache: Cache) -> None:
        if self.network is None:
            self.network = self._build()
        self.network.to(device)

    def extract(self, images: Tensor) -> tuple[Tensor, None]:
        assert self.network is not None
        return self.network(self._preparation(images)), None

    def stamp(self) -> dict[str, str | int | float]:
        return {"model": self.model}

    def _build(self) -> nn.Module:
        official, width, depth, gated = MODELS[self.model]
        url = URL.format(official)
        advice = ways_out(self.name, url)
        with said_plainly(self.model, self.weights_path or "their public address", advice):
            if self.weights_path is None:
                weights = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
            else:
                weights = read_weights(self.weights_path, advice)
            with torch.device("meta"):  # no random weights are drawn
                network = VisionTransformer(width, depth, gated=gated)
            network.load_state_dict(weights, assign=True)
        return network.float().eval().requires_grad_(False)


class VisionTransformer(nn.Module):
    """A pre-norm vision transformer (Dosovitskiy et al. 2021) with layer scale, under the official names.

    Args:
        width: of a token, a multiple of 64; heads have 64 dimensions.
        depth: number of blocks.
        gated: SwiGLU in place of the two-layer perceptron.
    """

    def __init__(self, width: int, depth: int, *, gated: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # for training; it is in the files
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, stride=PATCH)})
        self.blocks = nn.Sequential(*(_Block(width, gated=gated) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images float32 (B, 3, S, S), S a multiple of 14 -> (B, width)."""
        patches = self.patch_embed["proj"](images)
        positions = self.positions(patches.shape[-1])
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
        return self.norm(self.blocks(tokens + positions)[:, 0])  # type: ignore[no-any-return]

    def positions(self, side: int) -> Tensor:
        """Of the class token and of side x side patches, (1, 1 + side², width).

        Off the training grid of 37x37 they are bicubic without antialiasing. The step is 37 / (side + 0.1), not
        37 / side: the official model adds the tenth against rounding, and its weights were evaluated so.
        """
        if side == GRID:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = rest.mT.reshape(1, -1, GRID, GRID)
        grid = F.interpolate(grid, scale_factor=(side + 0.1) / GRID, mode="bicubic")
        return torch.cat([first, grid.flatten(2).mT], dim=1)


class _Block(nn.Module):
    def __init__(self, width: int, *, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _SwiGLU(width) if gated else _Perceptron(width)
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x


class _Attention(nn.Module):
    """softmax(q kᵀ / √64) v for each head, in full float32: fused kernels may round."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        weights = (HEAD**-0.5 * q @ k.mT).softmax(dim=-1)
        mixed: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return mixed


class _LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class _SwiGLU(nn.Module):
    """w3 (silu(w1 x) · w2 x) (Shazeer 2020, arXiv 2002.05202), with two thirds of the hidden width, in eights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (4 * width * 2 // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)  # type: ignore[no-any-return]
