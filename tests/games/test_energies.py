"""BEGAN and EBGAN: energies, the balance k and its memory, and the pulling-away term, against brute force."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from ganforge.draws import Draws
from ganforge.games.began import BEGAN
from ganforge.games.ebgan import EBGAN, pulling_away
from ganforge.games.energies import Margin
from ganforge.games.game import Turn
from ganforge.networks import autoencoder, mlp

pytestmark = pytest.mark.usefixtures("float64")


def networks(
    energy: Any = "l1", image_size: int | None = 8
) -> tuple[mlp.Generator, autoencoder.Discriminator]:
    generator = mlp.Generator(latent_dim=5, image_size=image_size, channels=1, width=16)
    return generator, autoencoder.Discriminator(image_size, 1, width=4, code_dim=6, energy=energy)


def batch(n: int = 6) -> dict[str, torch.Tensor]:
    return {"images": torch.rand(n, 1, 8, 8) * 2 - 1, "labels": torch.zeros(n, dtype=torch.int64)}


def error(game: Any, images: torch.Tensor) -> torch.Tensor:
    side = game.discriminator_side
    difference: torch.Tensor = (images - side.decoder(side.encoder(images))).flatten(1)
    return difference


@pytest.mark.parametrize("image_size", [None, 8, 16, 32, 64])
def test_the_logit_is_minus_the_distance_to_what_is_rebuilt(image_size: int | None) -> None:
    images = torch.rand(3, 1, image_size, image_size) if image_size else torch.rand(3, 1)
    for energy, norm in (("l1", lambda d: d.abs().mean(1)), ("l2", lambda d: d.square().sum(1).sqrt())):
        network = autoencoder.Discriminator(image_size, 1, width=4, code_dim=6, energy=energy)  # type: ignore[arg-type]
        codes = network.features(images)
        assert codes.shape == (3, 6)
        difference = (images - network.decoder(codes)).flatten(1)
        torch.testing.assert_close(network(images, torch.zeros(3)), -norm(difference))
    with pytest.raises(ValueError, match="energy=l3: it can be l1 or l2"):
        autoencoder.Discriminator(8, 1, energy="l3")  # type: ignore[arg-type]


def test_began_is_two_energies_in_balance() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    game = BEGAN(*networks(), gamma=0.7, k_rate=0.05)
    k = 0.0
    for round_ in range(4):
        data, turn = batch(), Turn(0, round_, Draws(seed, round_))
        terms = game.discriminator_terms(data, turn)
        z = Draws(seed, round_)
        fakes = [game.generator_side(z.normal(6, 5), data["labels"]) for _ in range(2)]
        real, fake, for_generator = (error(game, x).abs().mean().detach() for x in (data["images"], *fakes))
        torch.testing.assert_close(terms["adversarial"], real - k * fake)
        assert set(turn.observations) == {"real_energy", "fake_energy", "k", "convergence"}
        game.after_discriminator_step()
        of_generator = game.generator_terms(data, turn)["adversarial"]
        torch.testing.assert_close(of_generator, for_generator)
        game.after_generator_step()
        balance = 0.7 * float(real) - float(for_generator)
        k = min(1.0, max(0.0, k + 0.05 * balance))
        assert float(game.k) == pytest.approx(k, abs=1e-6)
        assert float(game.convergence) == pytest.approx(float(real) + abs(balance), abs=1e-6)
        data["images"] *= 2  # so that k moves


def test_micro_batches_and_further_steps_are_averaged_in_k() -> None:
    torch.manual_seed(random.randrange(2**32))
    whole = BEGAN(*networks(), gamma=1.0, k_rate=0.5)
    parts = BEGAN(whole.generator_side, whole.discriminator_side, gamma=1.0, k_rate=0.5)
    data = batch(8)
    data["images"] *= 4

    def halves() -> list[dict[str, torch.Tensor]]:
        return [{name: tensor[rows] for name, tensor in data.items()} for rows in (slice(4), slice(4, 8))]

    whole.discriminator_terms(data, Turn(0, 0, Draws(1, 0)))
    turn = Turn(0, 0, Draws(1, 0))
    for half in halves():
        parts.discriminator_terms(half, turn)
    whole.generator_terms(data, Turn(0, 0, Draws(2, 0)))
    turn = Turn(0, 0, Draws(2, 0))
    for half in halves():
        parts.generator_terms(half, turn)
    whole.after_generator_step()
    parts.after_generator_step()
    # The halves' latents are not the whole's, but the real energies are.
    assert float(whole.k) > 0
    assert float(parts.k) == pytest.approx(float(whole.k), abs=0.05)
    assert not parts.energies.any()


def test_ebgan_has_a_margin_and_pulls_codes_apart() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    game, data = EBGAN(*networks("l2"), margin=6.5, pulling_away_weight=0.3), batch()
    terms = game.discriminator_terms(data, Turn(0, 0, Draws(seed, 0)))
    of_generator = game.generator_terms(data, Turn(0, 0, Draws(seed, 0)))
    fakes = game.generator_side(Draws(seed, 0).normal(6, 5), data["labels"])
    real, fake = (error(game, images).square().sum(1).sqrt() for images in (data["images"], fakes))
    expected = real.mean() + (6.5 - fake).clamp(min=0).mean()
    torch.testing.assert_close(terms["adversarial"], expected)
    torch.testing.assert_close(of_generator["adversarial"], fake.mean())
    codes = game.discriminator_side.encoder(fakes)
    torch.testing.assert_close(of_generator["pulling_away"], 0.3 * pulling_away(codes))


def test_pulling_away_is_the_mean_squared_cosine_of_pairs() -> None:
    codes = torch.randn(5, 3, dtype=torch.float64)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    cosines = [codes[i] @ codes[j] / codes[i].norm() / codes[j].norm() for i, j in pairs]
    torch.testing.assert_close(pulling_away(codes), sum(c * c for c in cosines) / 20)
    assert float(pulling_away(torch.eye(4))) == 0
    assert float(pulling_away(torch.ones(4, 2))) == pytest.approx(1)


def test_numbers_outside_their_range_are_refused() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"margin={wrong} must be above 0"):
            Margin(wrong)
    with pytest.raises(ValueError, match=r"gamma=1\.5"):
        BEGAN(*networks(), gamma=1.5)
    with pytest.raises(ValueError, match="pulling_away_weight=-1"):
        EBGAN(*networks(), pulling_away_weight=-1)
