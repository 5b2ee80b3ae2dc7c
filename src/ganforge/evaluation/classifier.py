"""A small convolutional classifier whose embedding is what the `digits` and `domain` extractors give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Goes into the names of cached weights: raise it whenever the network or its training changes.
ARCHITECTURE_VERSION = 1
NUM_FEATURES = 64

FetchBatch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Row indices int64 (B,) -> images uint8 (B, C, H, W), labels int64 (B,)."""


class SmallClassifier(nn.Module):
    """3x3 convolutions, halved down to 2x2, then an embedding of 64 numbers and a linear layer.

    The embedding is normalised by batch statistics without an affine part and taken before the ReLU: over the
    data it was trained on each feature has mean 0 and variance 1 and is closer to the normal distribution
    that the Fréchet distance assumes, and no feature weighs more than another.

    Args:
        image_size: side that images are resized to.
        channels: 1 averages RGB to grey, 3 repeats grey.
        num_classes: number of classes.
        width: channels of the first convolution.
    """

    def __init__(self, image_size: int, channels: int, num_classes: int, width: int = 24) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels
        stride = 2 if image_size > 16 else 1  # the first layers of a large image would cost most of the time
        layers: list[nn.Module] = [*_convolution(channels, width, stride)]
        size, inputs = -(-image_size // stride), width
        while size > 2:
            layers += [*_convolution(inputs, 2 * width), nn.MaxPool2d(2)]
            size, inputs = size // 2, 2 * width
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.embed = nn.Linear(inputs * size * size, NUM_FEATURES, bias=False)
        self.normalise = nn.BatchNorm1d(NUM_FEATURES, affine=False)
        self.classify = nn.Linear(NUM_FEATURES, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 1 or 3, H, W) -> features float32 (B, 64), logits float32 (B, num_classes)."""
        return self.read(self.fit(images))

    def fit(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W) -> float32 (B, channels, image_size, image_size) in [-1, 1]."""
        x = images.float() / 127.5 - 1
        if x.shape[1] != self.channels:
            x = x.mean(dim=1, keepdim=True) if self.channels == 1 else x.expand(-1, self.channels, -1, -1)
        size = (self.image_size, self.image_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        return x

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images as `fit` gives them -> features, logits."""
        features = self.normalise(self.embed(self.trunk(x)))
        return features, self.classify(features.relu())


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def build_classifier(image_size: int, channels: int, num_classes: int, *, seed: int) -> SmallClassifier:
    """A fresh classifier, its weights a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallClassifier(image_size, channels, num_classes)


def shift(x: Tensor, offsets: Tensor) -> Tensor:
    """Move each image (B, C, H, W) by its own offsets int64 (B, 2), repeating the border."""
    reach = int(offsets.abs().max())
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4, mode="replicate").permute(0, 2, 3, 1)
    rows = torch.arange(height, device=x.device) + reach + offsets[:, :1]
    columns = torch.arange(width, device=x.device) + reach + offsets[:, 1:]
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train_classifier(
    classifier: SmallClassifier,
    rows: Tensor,
    fetch: FetchBatch,
    *,
    steps: int,
    device: torch.device | str,
    seed: int,
    batch_size: int = 128,
    max_shift: int = 1,
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Train in place, with Adam and a one-cycle rate, on the data's `rows` (int64 (N,)).

    Images are shifted by up to `max_shift` pixels; `tick` is called after each step; all randomness comes
    from `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    classifier.to(device).train()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    batch_size = min(batch_size, len(rows))
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = rows[torch.randperm(len(rows), generator=generator)]
        chosen, order = order[:batch_size], order[batch_size:]
        images, labels = fetch(chosen)
        offsets = torch.randint(-max_shift, max_shift + 1, (len(chosen), 2), generator=generator)
        _, logits = classifier.read(shift(classifier.fit(images.to(device)), offsets.to(device)))
        loss = F.cross_entropy(logits, labels.to(device), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        tick()
    classifier.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(
    classifier: SmallClassifier,
    rows: Tensor,
    fetch: FetchBatch,
    device: torch.device | str,
    batch_size: int = 512,
) -> float:
    """Share of `rows` whose most likely class is their label."""
    right = 0
    for chosen in torch.split(rows, batch_size):
        images, labels = fetch(chosen)
        right += int((classifier(images.to(device))[1].argmax(dim=1).cpu() == labels.cpu()).sum())
    return right / len(rows)


def weights_hash(state_dict: Mapping[str, Tensor]) -> str:
    """sha256 of names, types, shapes and values of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
