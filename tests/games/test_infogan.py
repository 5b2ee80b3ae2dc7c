"""InfoGAN: codes of normal numbers, and the bound of the mutual information against brute force."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.infogan import InfoGAN
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import mlp

pytestmark = pytest.mark.usefixtures("float64")


def infogan(**settings: object) -> InfoGAN:
    generator = mlp.Generator(latent_dim=12, image_size=8, channels=1, width=16)
    discriminator = mlp.Discriminator(image_size=8, channels=1, width=16)
    made: InfoGAN = InfoGAN(generator, discriminator, NonSaturating(), categories=[3, 4], **settings)  # type: ignore[arg-type]
    return made


def test_codes_are_uniform() -> None:
    side = infogan().generator_side
    categories, continuous = side.codes(torch.randn(40_000, 12))
    for code, k in zip(categories, (3, 4), strict=True):
        shares = torch.bincount(code, minlength=k) / len(code)
        torch.testing.assert_close(shares, torch.full((k,), 1 / k), atol=0.015, rtol=0)
    assert continuous.shape == (40_000, 2)
    assert continuous.abs().max() <= 1
    torch.testing.assert_close(continuous.var(0), torch.full((2,), 1 / 3), atol=0.01, rtol=0)


def test_the_network_is_given_noise_one_hot_categories_and_continuous_codes() -> None:
    side, given = infogan().generator_side, []
    side.generator.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))  # type: ignore[func-returns-value]
    z = torch.randn(5, 12)
    side(z, torch.zeros(5, dtype=torch.int64))
    for row, numbers in zip(given[0], z, strict=True):
        assert torch.equal(row[:3], numbers[:3])
        for start, k in ((3, 3), (6, 4)):
            part = row[start : start + k]
            assert part.sum() == 1
            assert part[numbers[start : start + k].argmax()] == 1
        expected = torch.erf(numbers[10:] / math.sqrt(2))
        torch.testing.assert_close(row[10:], expected)


def test_both_players_have_the_bound_of_the_information() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    game = infogan(categorical_weight=0.7, continuous_weight=0.3)
    data = {"images": torch.rand(6, 1, 8, 8), "labels": torch.zeros(6, dtype=torch.int64)}
    for terms_of in (game.discriminator_terms, game.generator_terms):
        turn = Turn(0, 0, Draws(seed, 0))
        terms = terms_of(data, turn)
        z = Draws(seed, 0).normal(6, 12)
        side, judge = game.generator_side, game.discriminator_side
        images = side(z, data["labels"])
        answers, means = judge.readout(judge.features(images))  # type: ignore[operator]
        categories, continuous = side.codes(z)
        lost = torch.zeros(2, dtype=torch.float64)
        for i in range(6):
            for logits, right in zip(answers, categories, strict=True):
                lost[0] -= logits[i].softmax(0)[right[i]].log() / 6
            density = torch.distributions.Normal(means[i], 1.0).log_prob(continuous[i])
            lost[1] -= density.sum() / 6
        torch.testing.assert_close(terms["categorical"], 0.7 * lost[0])
        torch.testing.assert_close(terms["continuous"], 0.3 * lost[1])
        information = turn.observations["mutual_information"]
        torch.testing.assert_close(information, math.log(12) - lost[0].detach())


def test_a_traversal_changes_one_code_alone() -> None:
    game = infogan()
    side, given = game.generator_side, []

    def note(_: object, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0])

    side.generator.register_forward_pre_hook(note)
    shown = game.pictures(Draws(1, 0), torch.zeros(5, dtype=torch.int64))
    names = ["code0_categorical", "code1_categorical", "code2_continuous", "code3_continuous"]
    assert list(shown) == names
    changing = (slice(3, 6), slice(6, 10), slice(10, 11), slice(11, 12))
    for name, latents, own in zip(names, given, changing, strict=True):
        rows, columns = shown[name].shape[:2]
        assert (rows, columns) == (5, own.stop - own.start if "cat" in name else 10)
        latents = latents.reshape(rows, columns, 12)
        others = [i for i in range(12) if not own.start <= i < own.stop]
        assert torch.equal(latents[:, :, others], latents[:, :1, others].expand(-1, columns, -1))
        assert len(latents[0, :, own].unique(dim=0)) == columns


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"take 13 latents, .* latent_dim=12: model\.generator\.latent_dim"):
        infogan(continuous=6)
    with pytest.raises(ValueError, match=r"categorical_weight=-1"):
        infogan(categorical_weight=-1)
