"""Samples in any number from a game: batch by batch, the same for the same seed whatever the device and process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganforge.draws import Draws
from ganforge.games.game import Game

BatchNormMode = Literal["running", "standing", "batch"]
STANDING_BATCHES = 100

Sampler = Callable[[Draws, Tensor], Tensor]
"""A batch's random numbers and labels int64 (b,) -> samples float32 (b, ...)."""


def proportional_labels(class_counts: Sequence[int], n: int) -> Tensor:
    """n labels, int64 (n,), with the data's class frequencies and no randomness; zeros where there are no classes.

    Label i is the class at quantile (i + 1/2) / n of the data, taken in an order that spreads every class evenly
    over the batches.
    """
    if not class_counts:
        return torch.zeros(n, dtype=torch.int64)
    upper = torch.tensor(class_counts, dtype=torch.float64).cumsum(0)
    quantiles = (torch.arange(n, dtype=torch.float64) + 0.5) / n * upper[-1]
    labels = torch.searchsorted(upper, quantiles, right=True)
    stride = next(
        s for s in range(int(n * 0.618) + 1, 2 * n + 2) if torch.gcd(torch.tensor(s), torch.tensor(n)) == 1
    )
    return labels[torch.arange(n) * stride % n]


def sampler(game: Game, generator_side: nn.Module) -> Sampler:
    """The game's samples from these weights."""
    return lambda draws, labels: game.sample(draws, labels, generator_side)


@torch.no_grad()
def generate(
    sample: Sampler,
    labels: Tensor,
    *,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    truncation: float | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (samples float32 (b, ...), labels int64 (b,)), in the order of `labels`.

    Batch k draws its noise from (seed, k): the samples depend on the seed, the labels and the batch size alone.

    Args:
        sample: what makes one batch, for labels on `device`.
        truncation: bound of |z|; numbers beyond it are drawn anew (Brock et al. 2019, section 3.1).
        rank, ranks: of `ranks` processes this one makes every `ranks`-th batch from number `rank`.
    """
    for k, chunk in enumerate(torch.split(labels, batch_size)):
        if k % ranks == rank:
            chunk = chunk.to(device)
            draws = Draws(seed, f"generate/{k}", truncation=truncation)
            yield sample(draws, chunk), chunk


class StyleTruncated(nn.Module):
    """A generator of styles whose styles are drawn towards their mean: mean + ψ (w - mean).

    Each label has a mean of its own, a function of the weights alone.

    Raises:
        ValueError: a generator without styles.
    """

    means: Tensor

    def __init__(self, generator_side: nn.Module, psi: float, num_classes: int) -> None:
        super().__init__()
        if not hasattr(generator_side, "mean_style"):
            raise ValueError(
                f"truncation_psi={psi}: {type(generator_side).__module__} has no styles, as model=stylegan2 has; "
                "truncation=... bounds z"
            )
        self.latent_dim = int(generator_side.latent_dim)  # type: ignore[arg-type]
        self.generator_side = generator_side
        self.psi = psi
        device = next(generator_side.parameters()).device
        labels = torch.arange(max(1, num_classes), device=device)
        self.register_buffer("means", generator_side.mean_style(labels))  # type: ignore[operator]

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator_side(z, labels, truncation=self.psi, mean=self.means[labels])
        return images


@dataclass(frozen=True)
class Manner:
    """How samples are made of a generator's weights.

    Args:
        truncation: bound of |z|, above 0; None for none.
        truncation_psi: share of a style's distance from the mean that it keeps (Karras et al. 2019, appendix B), for
            generators of styles; None for all of it.
        batch_norm: which statistics batch norm takes, see `with_batch_norm`.
        balanced: as many samples of each class, in place of the data's frequencies.

    Raises:
        ValueError: a number outside its range.
    """

    truncation: float | None = None
    truncation_psi: float | None = None
    batch_norm: BatchNormMode = "running"
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.truncation is not None and not self.truncation > 0:
            raise ValueError(f"truncation={self.truncation} must be greater than 0")
        if self.truncation_psi is not None and not 0 <= self.truncation_psi <= 1:
            raise ValueError(f"truncation_psi={self.truncation_psi} must be from 0 to 1")
        if self.batch_norm not in get_args(BatchNormMode):
            raise ValueError(
                f"batch_norm={self.batch_norm} is not known: it can be {', '.join(get_args(BatchNormMode))}"
            )

    def classes(self, class_counts: Sequence[int]) -> list[int]:
        """In whose proportions samples are made: those of the data, or one of each."""
        return [1] * len(class_counts) if self.balanced else list(class_counts)

    def side(
        self, game: Game, generator_side: nn.Module, class_counts: Sequence[int], batch_size: int
    ) -> nn.Module:
        """The generator side that makes such samples; itself where nothing is asked of it."""
        side = with_batch_norm(game, generator_side, self.batch_norm, self.classes(class_counts), batch_size)
        return (
            side
            if self.truncation_psi is None
            else StyleTruncated(side, self.truncation_psi, len(class_counts))
        )

    def facts(
        self, generator_side: nn.Module, class_counts: Sequence[int], batch_size: int
    ) -> dict[str, Any]:
        """For the protocol stamp; what was not asked for leaves no trace in it."""
        facts: dict[str, Any] = {
            "labels": ("balanced" if self.balanced else "the data's frequencies") if class_counts else None,
            "truncation": self.truncation,
            "batch_norm": self.batch_norm if batch_norms(generator_side) else None,
        }
        if self.truncation_psi is not None:
            facts["truncation_psi"] = self.truncation_psi
        if facts["batch_norm"] in ("standing", "batch"):
            facts["batch_size"] = batch_size  # then a sample depends on it
        return facts


@torch.no_grad()
def with_batch_norm(
    game: Game, generator_side: nn.Module, mode: BatchNormMode, class_counts: Sequence[int], batch_size: int
) -> nn.Module:
    """The generator side with its batch norm in another mode; itself where there is none, or for `running`.

    running: means and variances as training averaged them.
    standing: the same for these weights alone, averaged over 100 fresh batches (Brock et al. 2019, section 4).
    batch: those of each batch of samples; a sample then depends on the others of its batch.

    Raises:
        ValueError: another mode.
    """
    if mode not in get_args(BatchNormMode):
        raise ValueError(f"batch_norm={mode} is not known: it can be {', '.join(get_args(BatchNormMode))}")
    norms = batch_norms(generator_side)
    if mode == "running" or not norms:
        return generator_side
    side = copy.deepcopy(generator_side).eval()
    norms = batch_norms(side)
    if mode == "batch":
        for norm in norms:
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = None
        return side
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
        norm.train()
    device = next(side.parameters()).device
    for k in range(STANDING_BATCHES):
        labels = proportional_labels(class_counts, batch_size).to(device)
        game.sample(Draws(0, f"standing/{k}"), labels, side)
    return side.eval()


def batch_norms(module: nn.Module) -> list[Any]:
    """The batch-norm layers that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


class GameModel:
    """A game's generator and discriminator as the metrics of models ask for them.

    Args:
        game: whose `discriminator_side` takes images and labels.
        generator_side: the weights to use, `(z, labels) -> images`.
        num_classes: of the game; 0 for an unconditional one.
        device: where both are.
    """

    def __init__(
        self, game: Game, generator_side: nn.Module, num_classes: int, device: torch.device | str
    ) -> None:
        self.game = game
        self.generator_side = generator_side
        self.num_classes = num_classes
        self.device = torch.device(device)
        self.latent_dim = int(getattr(generator_side, "latent_dim", 0))

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator_side(z.to(self.device), labels.to(self.device))
        return images.float()

    @torch.no_grad()
    def discriminator_features(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """What enters the last linear or convolutional layer that the discriminator calls, flat: (B, D).

        A discriminator of packs sees each image beside itself.
        """
        side = self.game.discriminator_side
        copies = getattr(self.game, "packing", 1)
        images = images.repeat(1, copies, *[1] * (images.ndim - 2))
        seen: list[Tensor] = []
        layers = [m for m in side.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        hooks = [m.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for m in layers]
        modes = [(module, module.training) for module in side.modules()]
        try:
            side.eval()
            side(images.to(self.device), labels.to(self.device))
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes:
                module.training = mode
        return seen[-1].flatten(1).float() if seen else None
