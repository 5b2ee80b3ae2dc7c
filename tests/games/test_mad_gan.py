"""MAD-GAN: who makes what, and the game against the paper's k + 1 answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.mad_gan import MADGAN
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import mlp

pytestmark = pytest.mark.usefixtures("float64")

K = 3


def mad_gan(**settings: Any) -> MADGAN:
    def make() -> nn.Module:
        return mlp.Generator(latent_dim=5, image_size=8, channels=1, width=16)

    discriminator = mlp.Discriminator(image_size=8, channels=1, width=16)
    return MADGAN(make, discriminator, NonSaturating(), **{"number": K, **settings})


def test_each_row_is_its_own_generators() -> None:
    side = mad_gan().generator_side
    z, labels = torch.randn(20, 6), torch.zeros(20, dtype=torch.int64)
    chosen, images = side.chosen(z), side(z, labels)
    for row in range(20):
        own = side.generators[int(chosen[row])]
        torch.testing.assert_close(images[row], own(z[row : row + 1, :-1], labels[:1])[0])
    shares = torch.bincount(side.chosen(torch.randn(30_000, 6)), minlength=K) / 30_000
    torch.testing.assert_close(shares, torch.full((K,), 1 / K), atol=0.015, rtol=0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_generators_take_turns_over_all_ranks(ranks: int) -> None:
    game, n = mad_gan(), 8
    labels = torch.zeros(n // ranks, dtype=torch.int64)
    latents = [game._latents(Draws(7, 0, rank, ranks), labels) for rank in range(ranks)]
    chosen = game.generator_side.chosen(torch.cat(latents)).tolist()
    assert chosen == [(i + chosen[0]) % K for i in range(n)]


def test_small_batches_leave_no_generator_out() -> None:
    """As those of accumulate=..., or of sampling one at a time."""
    game, draws, labels = mad_gan(), Draws(random.randrange(2**32), 0), torch.zeros(1, dtype=torch.int64)
    chosen = torch.cat([game.generator_side.chosen(game._latents(draws, labels)) for _ in range(600)])
    shares = torch.bincount(chosen, minlength=K) / 600
    torch.testing.assert_close(shares, torch.full((K,), 1 / K), atol=0.1, rtol=0)


def test_the_loss_and_the_term_are_cross_entropy_over_all_answers() -> None:
    """Of the logits (real + logsumexp(which), which): softmax over k + 1, equations 1 and 2 of the paper."""
    seed = random.randrange(2**32)
    print("seed", seed)
    game = mad_gan()
    data = {"images": torch.rand(6, 1, 8, 8), "labels": torch.zeros(6, dtype=torch.int64)}
    terms = game.discriminator_terms(data, Turn(0, 0, Draws(seed, 0)))
    of_generator = game.generator_terms(data, Turn(0, 0, Draws(seed, 0)))
    z = game._latents(Draws(seed, 0), data["labels"])
    fakes = game.generator_side(z, data["labels"])
    judge, makers = game.discriminator_side, game.generator_side.chosen(z)

    def answers(images: torch.Tensor) -> torch.Tensor:
        which = judge.readout(judge.features(images))  # type: ignore[operator]
        real = judge(images, data["labels"]) + which.logsumexp(1)
        probabilities: torch.Tensor = torch.cat([real[:, None], which], dim=1).softmax(1)
        return probabilities

    real, fake = answers(data["images"]), answers(fakes)
    expected = -real[:, 0].log().mean()
    for row in range(6):
        expected = expected - fake[row, 1 + int(makers[row])].log() / 6
    torch.testing.assert_close(terms["adversarial"] + terms["which"], expected)
    torch.testing.assert_close(of_generator["adversarial"], -fake[:, 0].log().mean())
    assert set(of_generator) == {"adversarial"}


def test_pictures_have_a_row_for_each_generator() -> None:
    game = mad_gan()
    rows = game.pictures(Draws(1, 0), torch.zeros(4, dtype=torch.int64))["generators"]
    assert rows.shape == (K, 4, 1, 8, 8)
    z = Draws(1, 0).normal(4, 6)[:, :-1]
    for row, generator in zip(rows, game.generator_side.generators, strict=True):
        assert torch.equal(row, generator(z, torch.zeros(4, dtype=torch.int64)))


def test_one_generator_is_not_several() -> None:
    with pytest.raises(ValueError, match="number=1: of several generators there are at least 2"):
        mad_gan(number=1)
