"""Penalties against closed forms: critics simple enough that their gradients are known by hand."""

from __future__ import annotations

import inspect
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.networks.stylegan2 import Generator
from ganforge.penalties.dragan import Dragan, dragan
from ganforge.penalties.gradient_penalty import GradientPenalty, gradient_penalty
from ganforge.penalties.input_gradient import input_gradient
from ganforge.penalties.l1 import L1, l1
from ganforge.penalties.l2 import L2, l2
from ganforge.penalties.layer_weights import layer_weights
from ganforge.penalties.max_gradient import MaxGradient
from ganforge.penalties.orthogonal import Orthogonal, orthogonal
from ganforge.penalties.penalty import (
    Critic,
    CriticPenalty,
    DiscriminatorPenalty,
    GeneratorPenalty,
    LogitPenalty,
    ParameterPenalty,
    Penalty,
    Projection,
)
from ganforge.penalties.r1 import R1, r1
from ganforge.penalties.r2 import R2, r2
from ganforge.penalties.weight_clipping import WeightClipping

CONF = Path(__file__).parents[2] / "conf" / "penalty"
CRITIC_PENALTIES: list[CriticPenalty] = [
    GradientPenalty(),
    Dragan(),
    R1(gamma=2.0),
    R2(gamma=2.0),
    MaxGradient(),
]
each_critic_penalty = pytest.mark.parametrize(
    "penalty", CRITIC_PENALTIES, ids=lambda penalty: type(penalty).__name__
)
each_shape = pytest.mark.parametrize("shape", [(5, 3, 4, 4), (5, 2)], ids=["images", "vectors"])


@pytest.fixture
def seed() -> int:
    return int(np.random.default_rng().integers(2**31))


@pytest.fixture
def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=rng)


def linear(w: Tensor) -> Critic:
    """x -> w·x, with the gradient w everywhere."""
    return lambda x: (x * w).flatten(1).sum(1)


def quadratic(scale: Tensor | float) -> Critic:
    """x -> scale·‖x‖²/2, with the gradient scale·x."""
    return lambda x: scale * x.square().flatten(1).sum(1) / 2


@each_shape
def test_linear_critic(shape: tuple[int, ...], rng: torch.Generator, seed: int) -> None:
    real, fake, w = samples(shape, rng), samples(shape, rng), samples(shape[1:], rng)
    square = w.square().sum().item()
    off_one = (math.sqrt(square) - 1) ** 2
    expected = {
        GradientPenalty(weight=7): 7 * off_one,
        Dragan(weight=7): 7 * off_one,
        R1(gamma=7): 3.5 * square,
        R2(gamma=7): 3.5 * square,
        MaxGradient(weight=7): 7 * square,
    }
    for penalty, value in expected.items():
        result = penalty(linear(w), real, fake, Draws(seed, 0))
        assert result.shape == ()
        assert result.item() == pytest.approx(value, rel=1e-10)


@each_shape
def test_r1_and_r2_of_a_quadratic_critic(shape: tuple[int, ...], rng: torch.Generator, seed: int) -> None:
    real, fake = samples(shape, rng), 3 * samples(shape, rng)
    at_real, at_fake = ((x.numpy() ** 2).reshape(shape[0], -1).sum(1).mean() for x in (real, fake))
    assert r1(quadratic(2.0), real).item() == pytest.approx(4 * at_real, rel=1e-10)
    assert r2(quadratic(2.0), fake).item() == pytest.approx(4 * at_fake, rel=1e-10)
    assert R1(gamma=5)(quadratic(2.0), real, fake, Draws(seed, 0)).item() == pytest.approx(10 * at_real)
    assert R2(gamma=5)(quadratic(2.0), real, fake, Draws(seed, 0)).item() == pytest.approx(10 * at_fake)


@each_shape
def test_gradient_penalty_is_taken_between_real_and_fake(
    shape: tuple[int, ...], rng: torch.Generator, seed: int
) -> None:
    real, fake = samples(shape, rng), samples(shape, rng)
    epsilon = Draws(seed, 3).uniform(shape[0]).numpy().reshape(shape[0], *[1] * (len(shape) - 1))
    points = (epsilon * real.numpy() + (1 - epsilon) * fake.numpy()).reshape(shape[0], -1)
    expected = ((np.linalg.norm(points, axis=1) - 1) ** 2).mean()
    result = gradient_penalty(quadratic(1.0), real, fake, Draws(seed, 3))
    assert result.item() == pytest.approx(expected, rel=1e-6)


@each_shape
def test_max_gradient_is_the_largest_slope_between_real_and_fake(
    shape: tuple[int, ...], rng: torch.Generator, seed: int
) -> None:
    real, fake = samples(shape, rng), samples(shape, rng)
    epsilon = Draws(seed, 3).uniform(shape[0]).double().view(-1, *[1] * (len(shape) - 1))
    points = (epsilon * real + (1 - epsilon) * fake).flatten(1)
    expected = max(4 * (point @ point).item() for point in points)
    assert MaxGradient(weight=3)(quadratic(2.0), real, fake, Draws(seed, 3)).item() == pytest.approx(
        3 * expected, rel=1e-6
    )


def test_gradient_penalty_is_two_sided(seed: int) -> None:
    x = torch.zeros(4, 2)
    for slope in (0.25, 1.75):
        value = gradient_penalty(linear(torch.tensor([slope, 0.0])), x, x, Draws(seed, 0))
        assert value.item() == pytest.approx(0.75**2)


@each_shape
def test_dragan_is_taken_around_real(shape: tuple[int, ...], rng: torch.Generator, seed: int) -> None:
    visited: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        visited.append(x.detach())
        return x.flatten(1).sum(1)

    real = samples(shape, rng)
    dragan(critic, real, Draws(seed, 0))
    step = (visited[0] - real) / real.numpy().std()
    assert ((step >= 0) & (step <= 0.5)).all()
    assert step.unique().numel() == step.numel()  # noise for each number, not for each sample


@each_critic_penalty
def test_the_round_decides_the_value(penalty: CriticPenalty, rng: torch.Generator, seed: int) -> None:
    real, fake = samples((6, 3), rng), samples((6, 3), rng)
    first, again, next_round = (penalty(quadratic(1.0), real, fake, Draws(seed, r)).item() for r in (0, 0, 1))
    assert first == again
    assert (first != next_round) == isinstance(penalty, GradientPenalty | Dragan | MaxGradient)


@each_critic_penalty
@each_shape
def test_gradient_reaches_the_discriminator_and_nothing_else(
    penalty: CriticPenalty, shape: tuple[int, ...], rng: torch.Generator, seed: int
) -> None:
    real, fake = samples(shape, rng).float(), samples(shape, rng).float().requires_grad_()
    size = math.prod(shape[1:])
    network = nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    penalty(network, real, fake * 1, Draws(seed, 0)).backward()
    weights = [parameter for parameter in network.parameters() if parameter.ndim == 2]
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in weights)
    assert fake.grad is None
    assert real.grad is None
    assert not real.requires_grad


@each_critic_penalty
def test_second_order_gradients_are_exact(penalty: CriticPenalty, rng: torch.Generator, seed: int) -> None:
    real, fake = samples((3, 2), rng), samples((3, 2), rng)

    def value(w: Tensor, v: Tensor) -> Tensor:
        return penalty(lambda x: torch.tanh(x @ w) @ v, real, fake, Draws(seed, 0))  # type: ignore[no-any-return]

    parameters = samples((2, 4), rng).requires_grad_(), samples((4,), rng).requires_grad_()
    assert torch.autograd.gradcheck(value, parameters)


@each_critic_penalty
def test_finite_where_the_critic_is_flat(penalty: CriticPenalty, seed: int) -> None:
    w = torch.zeros(3, requires_grad=True)
    value = penalty(lambda x: x @ w, torch.randn(4, 3), torch.randn(4, 3), Draws(seed, 0))
    (slope,) = torch.autograd.grad(value, w)
    assert value.item() == (10 if isinstance(penalty, GradientPenalty | Dragan) else 0)
    assert torch.equal(slope, torch.zeros(3))


@each_critic_penalty
def test_stays_in_float32_inside_autocast(penalty: CriticPenalty, rng: torch.Generator, seed: int) -> None:
    real, fake = samples((4, 6), rng).float(), samples((4, 6), rng).float()
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
    outside = penalty(network, real, fake, Draws(seed, 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = penalty(network, real, fake, Draws(seed, 0))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@settings(deadline=None)  # a first call loads code
@given(
    rows=st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    factor=st.floats(0, 8),
)
def test_r1_is_quadratic_in_the_critic_and_a_mean_over_samples(
    rows: list[list[float]], factor: float
) -> None:
    x = torch.tensor(rows, dtype=torch.float64)
    one = r1(quadratic(1.0), x)
    torch.testing.assert_close(r1(quadratic(factor), x), factor**2 * one)
    torch.testing.assert_close(r1(quadratic(1.0), torch.cat([x, x])), one)


def test_input_gradient_keeps_samples_apart(rng: torch.Generator) -> None:
    x = samples((4, 3, 2, 2), rng)
    torch.testing.assert_close(input_gradient(quadratic(3.0), x), 3 * x.flatten(1))


# -- parameters


def test_orthogonal_is_the_frobenius_distance(rng: torch.Generator) -> None:
    weights = [samples((4, 3, 2, 2), rng), samples((5, 7), rng)]
    grams = [w.numpy().reshape(len(w), -1) @ w.numpy().reshape(len(w), -1).T for w in weights]
    full = sum(np.linalg.norm(g - np.eye(len(g))) ** 2 for g in grams)
    off = sum(np.linalg.norm(g * (1 - np.eye(len(g)))) ** 2 for g in grams)
    assert orthogonal(weights).item() == pytest.approx(full, rel=1e-10)
    assert orthogonal(weights, off_diagonal=True).item() == pytest.approx(off, rel=1e-10)
    tracked = [w.requires_grad_() for w in weights]
    assert torch.autograd.gradcheck(lambda *w: orthogonal(w, off_diagonal=True), tracked)
    assert torch.autograd.gradcheck(lambda *w: orthogonal(w), tracked)


@settings(deadline=None)  # a first call loads code
@given(size=st.integers(1, 6), length=st.floats(0.1, 5), seed=st.integers(0, 2**31))
def test_orthogonal_rows_are_free(size: int, length: float, seed: int) -> None:
    rotation = torch.linalg.qr(samples((6, 6), torch.Generator().manual_seed(seed))).Q[:size]
    assert orthogonal([rotation]).item() == pytest.approx(0, abs=1e-20)
    assert orthogonal([length * rotation], off_diagonal=True).item() == pytest.approx(0, abs=1e-20)
    assert orthogonal([length * rotation]).item() == pytest.approx(
        size * (length**2 - 1) ** 2, rel=1e-9, abs=1e-12
    )


def test_orthogonal_reads_trained_weights_of_layers_only() -> None:
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Embedding(7, 2), normed, nn.PReLU(5))
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    assert [tuple(w.shape) for w in layer_weights(network)] == [(5, 3, 3, 3), (7, 2), (4, 6)]
    Orthogonal(weight=0.5)(network).backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in layer_weights(network))
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())
    expected = 0.5 * orthogonal(layer_weights(network)).item()
    assert Orthogonal(weight=0.5)(network).item() == pytest.approx(expected)


def test_modulated_convolutions_are_layers() -> None:
    generator = Generator(4, 16, 3, width=4, w_dim=6, depth=2)
    found = {id(weight) for weight in layer_weights(generator)}
    for name, parameter in generator.named_parameters():
        assert (id(parameter) in found) == name.endswith("weight"), name


@pytest.mark.parametrize("penalty", [Orthogonal(), L1(), L2()], ids=lambda penalty: type(penalty).__name__)
def test_penalties_of_weights_need_layers(penalty: ParameterPenalty) -> None:
    with pytest.raises(ValueError, match="BatchNorm1d has no convolution"):
        penalty(nn.BatchNorm1d(3))


def test_l1_and_l2_are_sums_over_weights_alone(rng: torch.Generator) -> None:
    weights = [samples((4, 3, 2, 2), rng), samples((5, 7), rng)]
    flat = np.concatenate([w.numpy().ravel() for w in weights])
    assert l1(weights).item() == pytest.approx(np.linalg.norm(flat, 1), rel=1e-10)
    assert l2(weights).item() == pytest.approx(np.linalg.norm(flat) ** 2, rel=1e-10)
    network = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(6, 4))
    for penalty, norm in ((L1(weight=0.5), l1), (L2(weight=0.5), l2)):
        assert penalty(network).item() == pytest.approx(
            0.5 * norm([network[0].weight, network[2].weight]).item()
        )
        slopes = torch.autograd.grad(penalty(network), list(network.parameters()), allow_unused=True)
        assert [slope is not None for slope in slopes] == [True, False, False, False, True, False]


def test_orthogonal_leaves_the_generators_embeddings_alone() -> None:
    network = nn.Sequential(nn.Embedding(7, 2), nn.Linear(6, 4))
    assert len(layer_weights(network)) == 2
    expected = orthogonal([network[1].weight]).item()
    assert Orthogonal(weight=1.0, player="generator")(network).item() == pytest.approx(expected)


def test_a_player_is_one_of_two() -> None:
    for kind in (Orthogonal, L1, L2):
        with pytest.raises(ValueError, match="player=critic: it can be discriminator or generator"):
            kind(player="critic")  # type: ignore[arg-type]


@settings(deadline=None)  # a first call loads code
@given(clip=st.floats(1e-4, 10))
def test_weight_clipping_clamps_all_and_moves_no_more(clip: float) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    projection = WeightClipping(clip)
    projection.project_(network)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name].clamp(-clip, clip))
        assert parameter.requires_grad
    once = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    projection.project_(network)
    assert all(torch.equal(parameter, once[name]) for name, parameter in network.named_parameters())


# -- the user's mistakes, and configuration


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_factors_are_finite_and_not_negative(value: float) -> None:
    for kind in (GradientPenalty, Dragan, Orthogonal, MaxGradient, L1, L2):
        with pytest.raises(ValueError, match=f"weight={value}"):
            kind(weight=value)
    for gamma_kind in (R1, R2):
        with pytest.raises(ValueError, match=f"gamma={value}"):
            gamma_kind(gamma=value)
    with pytest.raises(ValueError, match=f"clip={value}"):
        WeightClipping(clip=value)


def test_a_penalty_is_due_at_least_sometimes() -> None:
    with pytest.raises(ValueError, match="every=0"):
        R1(gamma=1, every=0)
    with pytest.raises(ValueError, match="clip=0"):
        WeightClipping(clip=0)
    assert R1(gamma=1, every=16).every == 16


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_composes_under_its_own_key_and_repeats_its_defaults(path: Path) -> None:
    (key, config), *others = yaml.safe_load(path.read_text()).items()
    assert (key, others) == (path.stem, [])
    module, name = config["_target_"].rsplit(".", 1)
    assert module == f"ganforge.penalties.{path.stem}"
    kind: Any = getattr(import_module(module), name)
    penalty = instantiate(config)
    assert isinstance(penalty, Penalty)
    assert isinstance(
        penalty,
        CriticPenalty
        | DiscriminatorPenalty
        | LogitPenalty
        | ParameterPenalty
        | GeneratorPenalty
        | Projection,
    )
    del config["_target_"]
    parameters = inspect.signature(kind).parameters
    assert list(config) == list(parameters)
    defaults = {k: p.default for k, p in parameters.items() if p.default is not inspect.Parameter.empty}
    assert defaults.items() <= config.items()
