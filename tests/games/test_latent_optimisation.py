"""LOGAN's step: against float64 finite differences, and in both players' terms."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.latent_optimisation import LatentOptimisation, held, latent_step
from ganforge.games.synthesis import Synthesis
from ganforge.losses.hinge import Hinge
from ganforge.losses.wasserstein import Wasserstein
from ganforge.networks import mlp, sngan
from ganforge.penalties.gradient_penalty import GradientPenalty

EPSILON = 1e-5


@pytest.fixture
def seed() -> int:
    value = random.randrange(2**31)
    print("seed", value)
    torch.manual_seed(value)
    return value


@pytest.mark.parametrize("beta", [None, 0.7])
def test_the_step_is_the_damped_natural_gradient(beta: float | None, seed: int) -> None:
    slope = torch.randn(4, 6, dtype=torch.float64)
    step = latent_step(slope, 0.9, beta)
    for g, moved in zip(slope, step, strict=True):
        fisher = torch.eye(6, dtype=torch.float64)
        if beta is not None:
            fisher = torch.outer(g, g) + beta * fisher
        torch.testing.assert_close(moved, 0.9 * torch.linalg.solve(fisher, g))


class Scores(nn.Module):
    """A smooth f(z) with parameters of a discriminator and of a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(3, 5).double()
        self.discriminator = nn.Linear(5, 4).double()

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.discriminator(torch.tanh(self.generator(z)))).sum(dim=1)


@pytest.mark.parametrize("beta", [None, 0.7])
def test_moved_latents_and_their_gradients_by_finite_differences(beta: float | None, seed: int) -> None:
    scores, z = Scores(), torch.randn(4, 3, dtype=torch.float64)
    optimisation = LatentOptimisation(alpha=0.9, beta=beta, weight=2.0, share=1.0, clip=100.0)

    def slope_at(z: Tensor) -> Tensor:
        with torch.no_grad():
            columns = []
            for i in range(z.shape[1]):
                shift = torch.zeros_like(z)
                shift[:, i] = EPSILON
                columns.append((scores(z + shift) - scores(z - shift)) / (2 * EPSILON))
            return torch.stack(columns, dim=1)

    moved, penalty = optimisation(z, scores, Draws(seed, 0))
    step = latent_step(slope_at(z), 0.9, beta)
    torch.testing.assert_close(moved, z + step, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(penalty, 2 * step.square().sum(dim=1).mean(), atol=1e-8, rtol=1e-6)

    def value() -> Tensor:
        moved, penalty = optimisation(z, scores, Draws(seed, 0))
        return scores(moved).sum() + penalty

    parameters = list(scores.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for index in random.sample(range(parameter.numel()), 3):
            flat = parameter.data.view(-1)
            before = flat[index].item()
            flat[index] = before + EPSILON
            above = value().item()
            flat[index] = before - EPSILON
            below = value().item()
            flat[index] = before
            assert gradient.view(-1)[index].item() == pytest.approx(
                (above - below) / (2 * EPSILON), rel=1e-5, abs=1e-7
            )


def test_a_share_moves_and_no_number_by_more_than_the_bound(seed: int) -> None:
    z = torch.randn(4000, 3)
    steep = LatentOptimisation(alpha=50.0, beta=None, share=0.3, clip=0.25, weight=1.0)
    moved, penalty = steep(z, lambda z: z.sin().sum(dim=1), Draws(seed, 0))
    change = (moved - z).detach()
    assert change.abs().max() <= 0.25 + 1e-6
    still = (change == 0).float().mean(dim=0)
    torch.testing.assert_close(still, torch.full((3,), 0.7), atol=0.05, rtol=0)
    assert (change == 0).all(dim=1).float().mean().item() == pytest.approx(0.7**3, abs=0.05)
    torch.testing.assert_close(penalty.detach(), change.square().sum(dim=1).mean(), atol=1e-4, rtol=1e-4)
    parts = [steep(z.chunk(2)[r], lambda z: z.sin().sum(dim=1), Draws(seed, 0, r, 2))[0] for r in (0, 1)]
    assert torch.equal(torch.cat(parts), moved)


def test_numbers_that_take_no_part_are_constants(seed: int) -> None:
    z = torch.randn(50, 6)
    half = LatentOptimisation(alpha=0.9, beta=0.7, weight=1.0, share=0.5, clip=100.0)
    moved, _ = half(z, lambda z: z.square().sum(dim=1) / 2, Draws(seed, 0))
    change = (moved - z).detach()
    slope = torch.where(change != 0, z, 0.0)
    torch.testing.assert_close(change, latent_step(slope, 0.9, 0.7), atol=1e-5, rtol=1e-4)


def test_both_players_see_moved_latents_and_keep_to_their_side(seed: int) -> None:
    generator = mlp.Generator(latent_dim=5, image_size=8, channels=1, num_classes=3, width=8)
    discriminator = mlp.Discriminator(image_size=8, channels=1, num_classes=3, width=8)
    optimisation = LatentOptimisation(share=1.0)
    penalties = {"gp": GradientPenalty()}
    game = Synthesis(generator, discriminator, Wasserstein(), penalties, latent_optimisation=optimisation)
    batch = {"images": torch.rand(6, 1, 8, 8), "labels": torch.arange(6) % 3}

    def turn() -> Turn:
        return Turn(0, 0, Draws(seed, 0))

    z, labels = Draws(seed, 0).normal(6, 5), batch["labels"]
    moved, change = optimisation(z, lambda z: discriminator(generator(z, labels), labels), Draws(seed, 1))
    assert (moved != z).any()
    terms = game.discriminator_terms(batch, turn())
    assert set(terms) == {"adversarial", "latent_step", "gp"}
    torch.testing.assert_close(terms["latent_step"], change)
    expected = (
        discriminator(generator(moved, labels), labels).mean() - discriminator(batch["images"], labels).mean()
    )
    torch.testing.assert_close(terms["adversarial"], expected)
    through = torch.autograd.grad(expected + change, list(discriminator.parameters()))
    (terms["adversarial"] + terms["latent_step"]).backward()
    for parameter, gradient in zip(discriminator.parameters(), through, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert all(p.grad is None and p.requires_grad for p in generator.parameters())

    discriminator.requires_grad_(False)
    terms = game.generator_terms(batch, turn())
    assert set(terms) == {"adversarial", "latent_step"}
    torch.testing.assert_close(terms["adversarial"], -discriminator(generator(moved, labels), labels).mean())
    (terms["adversarial"] + terms["latent_step"]).backward()
    assert all(p.grad is not None for p in generator.parameters())
    plain = game.sample(Draws(seed, 0), labels)
    assert torch.equal(plain, generator(z, labels)), "samples are of latents as they are drawn"


def test_spectral_and_batch_norm_bear_two_passes(seed: int) -> None:
    generator = sngan.Generator(latent_dim=4, image_size=32, channels=1, width=2)
    discriminator = sngan.Discriminator(image_size=32, channels=1, width=2)
    game = Synthesis(generator, discriminator, Hinge(), latent_optimisation=LatentOptimisation())
    batch = {"images": torch.rand(4, 1, 32, 32), "labels": torch.zeros(4, dtype=torch.int64)}
    for terms_of in (game.discriminator_terms, game.generator_terms):
        sum(terms_of(batch, Turn(0, 0, Draws(seed, 0))).values()).backward()  # type: ignore[union-attr]
    assert all(torch.isfinite(p.grad).all() for p in game.parameters() if p.grad is not None)


def test_what_is_held_comes_back_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    with held(network):
        assert not any(p.requires_grad for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("setting", ["alpha", "beta", "share", "clip", "weight"])
def test_numbers_outside_their_range_are_named(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=-1"):
        LatentOptimisation(**{setting: -1.0})
