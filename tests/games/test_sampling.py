"""Labels in the data's proportions, and samples that depend on the seed, the labels and the batch size alone."""

from __future__ import annotations

import copy
import functools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.game import Game
from ganforge.games.sampling import (
    STANDING_BATCHES,
    BatchNormMode,
    GameModel,
    batch_norms,
    generate,
    proportional_labels,
    sampler,
    with_batch_norm,
)
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import dcgan

CONF = Path(__file__).parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))

counts = st.lists(st.integers(0, 10_000), min_size=1, max_size=30).filter(any)


@given(counts=counts, n=st.integers(1, 3000))
def test_labels_have_the_datas_proportions(counts: list[int], n: int) -> None:
    labels = proportional_labels(counts, n)
    assert labels.shape == (n,)
    assert labels.dtype == torch.int64
    found = labels.bincount(minlength=len(counts)).double()
    wanted = torch.tensor(counts).double() / sum(counts) * n
    assert (found - wanted).abs().max() <= 1
    assert all(found[k] == 0 for k, count in enumerate(counts) if count == 0)
    assert all(found[k] >= 1 for k, share in enumerate(wanted.tolist()) if share >= 1.001)
    assert torch.equal(proportional_labels(counts, n), labels)


@given(classes=st.integers(2, 12), batches=st.integers(1, 8))
def test_each_batch_has_about_its_share_of_every_class(classes: int, batches: int) -> None:
    size = 20 * classes
    for labels in torch.split(proportional_labels([100] * classes, size * batches), size):
        assert (labels.bincount(minlength=classes) - 20).abs().max() <= 4


def test_without_classes_all_labels_are_zero() -> None:
    assert torch.equal(proportional_labels([], 5), torch.zeros(5, dtype=torch.int64))


def game() -> Game:
    generator = dcgan.Generator(latent_dim=6, image_size=8, channels=1, num_classes=4, width=4).eval()
    return Synthesis(generator, nn.Identity(), NonSaturating())


def collect(played: Game, labels: Tensor, seed: int, batch_size: int) -> Tensor:
    sample = sampler(played, played.generator_side)
    pairs = list(generate(sample, labels, seed=seed, batch_size=batch_size))
    assert torch.equal(torch.cat([mine for _, mine in pairs]), labels)
    assert {len(samples) for samples, _ in pairs[:-1]} <= {batch_size}
    return torch.cat([samples for samples, _ in pairs])


def test_samples_depend_on_the_seed_the_labels_and_the_batch_size_alone() -> None:
    played, labels, seed = game(), torch.randint(4, (23,)), random.randrange(2**32)
    samples = collect(played, labels, seed, batch_size=8)
    torch.rand(random.randrange(10))
    assert torch.equal(collect(played, labels, seed, batch_size=8), samples)
    assert not torch.equal(collect(played, labels, seed + 1, batch_size=8), samples)
    assert not samples.requires_grad

    # Asking for less gives the same beginning, and another label changes its own sample only.
    assert torch.equal(collect(played, labels[:16], seed, batch_size=8), samples[:16])
    changed = labels.clone()
    changed[3] = (labels[3] + 1) % 4
    different = (collect(played, changed, seed, batch_size=8) != samples).flatten(1).any(dim=1)
    assert different.nonzero().flatten().tolist() == [3]


def test_batch_k_draws_its_noise_from_the_seed_and_k() -> None:
    played, labels, seed = game(), torch.randint(4, (20,)), random.randrange(2**32)
    samples = collect(played, labels, seed, batch_size=8)
    z = Draws(seed, "generate/1").normal(8, 6)
    with torch.no_grad():
        torch.testing.assert_close(samples[8:16], played.generator_side(z, labels[8:16]))


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_out_the_batches_of_one_process(ranks: int) -> None:
    """Rank r makes batches r, r + ranks, ...: dealt back in turn they are what one process makes."""
    played, labels, seed = game(), torch.randint(4, (30,)), random.randrange(2**32)
    sample = sampler(played, played.generator_side)

    def made(rank: int, of: int) -> list[tuple[Tensor, Tensor]]:
        return list(generate(sample, labels, seed=seed, batch_size=4, rank=rank, ranks=of))

    alone, shares = made(0, 1), [made(rank, ranks) for rank in range(ranks)]
    assert sum(map(len, shares)) == len(alone)
    for k, (samples, asked) in enumerate(alone):
        theirs = shares[k % ranks][k // ranks]
        assert torch.equal(theirs[0], samples)
        assert torch.equal(theirs[1], asked)


def test_truncation_bounds_the_noise_that_the_generator_sees() -> None:
    seen: list[Tensor] = []

    def sample(draws: Draws, labels: Tensor) -> Tensor:
        seen.append(draws.normal(len(labels), 6))
        return seen[-1]

    list(generate(sample, torch.zeros(50, dtype=torch.int64), seed=1, batch_size=20, truncation=0.5))
    assert torch.cat(seen).abs().max() <= 0.5
    played, labels = game(), torch.randint(4, (8,))
    bounded, free = (
        next(
            generate(sampler(played, played.generator_side), labels, seed=1, batch_size=8, truncation=bound)
        )[0]
        for bound in (0.1, None)
    )
    assert not torch.equal(bounded, free)


def trained_game() -> Game:
    """A game whose batch norm has statistics and weights that are not those of a fresh layer."""
    played = game()
    for norm in batch_norms(played.generator_side):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    return played


def test_running_statistics_are_the_generator_as_it_is() -> None:
    played = trained_game()
    side = played.generator_side
    assert with_batch_norm(played, side, "running", [1] * 4, 8) is side
    plain = nn.Sequential(nn.Linear(6, 2))
    for mode in ("standing", "batch"):
        assert with_batch_norm(played, plain, mode, [1] * 4, 8) is plain


@pytest.mark.parametrize("mode", ["standing", "batch"])
def test_another_mode_leaves_the_games_own_weights_alone(mode: BatchNormMode) -> None:
    played = trained_game()
    before = copy.deepcopy(played.state_dict())
    modes = [m.training for m in played.modules()]
    side = with_batch_norm(played, played.generator_side, mode, [1] * 4, 8)
    list(generate(sampler(played, side), torch.randint(4, (20,)), seed=0, batch_size=8))
    assert all(torch.equal(value, before[name]) for name, value in played.state_dict().items())
    assert [m.training for m in played.modules()] == modes
    assert not any(m.training for m in side.modules())


def test_standing_statistics_are_averages_over_fresh_batches() -> None:
    """Of the first layer, whose input no other layer's statistics touch: recomputed by hand."""
    played, size, counts = trained_game(), 16, [3, 1, 1, 1]
    side = with_batch_norm(played, played.generator_side, "standing", counts, size)
    seen: list[Tensor] = []
    first = next(m for m in played.generator_side.modules() if m in batch_norms(played.generator_side))
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    labels = proportional_labels(counts, size)
    with torch.no_grad():
        for k in range(STANDING_BATCHES):
            played.sample(Draws(0, f"standing/{k}"), labels, played.generator_side)
    hook.remove()
    stacked = torch.stack(seen).double().transpose(1, 2).flatten(2)  # (batches, channels, values)
    standing = batch_norms(side)[0]
    torch.testing.assert_close(standing.running_mean.double(), stacked.mean(2).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(standing.running_var.double(), stacked.var(2).mean(0), rtol=1e-4, atol=1e-5)


def test_in_batch_mode_the_layers_of_each_batch_are_normalised_by_it() -> None:
    played = trained_game()
    side = with_batch_norm(played, played.generator_side, "batch", [1] * 4, 8)
    labels, seed = torch.randint(4, (12,)), random.randrange(2**32)
    z = Draws(seed, "generate/0").normal(12, 6)
    (samples, _), *_ = generate(sampler(played, side), labels, seed=seed, batch_size=12)
    in_training = copy.deepcopy(played.generator_side).train()
    with torch.no_grad():
        torch.testing.assert_close(samples, in_training(z, labels))
        torch.testing.assert_close(side(z, labels), samples)  # nothing was remembered of the batch before


def test_an_unknown_batch_norm_mode() -> None:
    played = game()
    with pytest.raises(ValueError, match=r"batch_norm=live .*running, standing, batch"):
        with_batch_norm(played, played.generator_side, "live", [1] * 4, 8)  # type: ignore[arg-type]


def built(model: str, num_classes: int, image_size: int | None) -> Game:
    """The networks of a file of conf/model, narrow, in training mode."""
    config = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text())
    facts = {
        "image_size": image_size,
        "channels": 1 if image_size else 2,
        "num_classes": num_classes,
        "width": 8,
    }

    def network(part: str) -> nn.Module:
        words: dict[str, Any] = {
            k: v for k, v in config[part].items() if k not in ("_target_", "head", "conditioning", *facts)
        }
        if "norm" in words:
            words["norm"] = "batch"
        made: nn.Module = get_class(config[part]["_target_"])(**words, **facts)
        return made

    return Synthesis(network("generator"), network("discriminator"), NonSaturating()).train()


@functools.cache
def sizes_of(model: str) -> list[int | None]:
    """Image sizes to try a model with: its two ways, or 32, or 64 where that is the smallest it makes."""
    two = {"mlp": [8, None], "dcgan": [8, 32], "sngan": [32, 64]}
    if model in two:
        return two[model]
    try:
        built(model, 0, 32)
    except ValueError:
        return [64]
    return [32]


@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize(
    ("model", "image_size"), [(model, size) for model in MODELS for size in sizes_of(model)], ids=str
)
def test_a_games_model_shows_what_its_discriminators_last_layer_sees(
    model: str, image_size: int | None, num_classes: int
) -> None:
    """One row an image, the same in any batch, and the networks are as they were: weights, statistics, modes."""
    played = built(model, num_classes, image_size)
    modelled = GameModel(played, played.generator_side, num_classes, "cpu")
    labels = torch.randint(max(1, num_classes), (6,))
    modes = {name: module.training for name, module in played.named_modules()}
    modes[next(name for name, m in played.named_modules() if isinstance(m, nn.Linear))] = False
    for name, module in played.named_modules():
        module.training = modes[name]  # a mixture of modes, which has to come back
    before = copy.deepcopy(played.state_dict())
    images = torch.rand(6, *((1, image_size, image_size) if image_size else (2,))) * 2 - 1
    features = modelled.discriminator_features(images, labels)
    assert features is not None
    assert features.dim() == 2
    assert features.shape[0] == 6
    assert features.shape[1] > 1
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert features.isfinite().all()
    one = modelled.discriminator_features(images[2:3], labels[2:3])
    assert one is not None
    torch.testing.assert_close(one[0], features[2], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in played.state_dict().items())
    assert {name: module.training for name, module in played.named_modules()} == modes
    assert not any(
        module._forward_pre_hooks
        for module in played.discriminator_side.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_games_model_generates_from_a_given_z(model: str) -> None:
    played = built(model, 5, sizes_of(model)[0]).eval()
    modelled = GameModel(played, played.generator_side, 5, "cpu")
    assert modelled.latent_dim == played.generator_side.latent_dim > 0
    z, labels = torch.randn(3, modelled.latent_dim), torch.randint(5, (3,))
    images = modelled.generate(z, labels)
    assert not images.requires_grad
    with torch.no_grad():
        assert torch.equal(images, played.generator_side(z, labels))


def test_the_last_layer_of_an_mlp_is_its_linear_one() -> None:
    played = built("mlp", 0, None).eval()
    points = torch.randn(7, 2)
    features = GameModel(played, played.generator_side, 0, "cpu").discriminator_features(
        points, torch.zeros(7, dtype=torch.int64)
    )
    layers: Any = played.discriminator_side.layers
    with torch.no_grad():
        torch.testing.assert_close(features, layers(points))
