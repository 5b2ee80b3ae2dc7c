"""SS-GAN: the turned images, and both rotation terms against brute force."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.ssgan import SSGAN, turned
from ganforge.losses.hinge import Hinge
from ganforge.networks import mlp, sngan

pytestmark = pytest.mark.usefixtures("float64")


def ssgan() -> SSGAN:
    generator = mlp.Generator(latent_dim=5, image_size=8, channels=1, width=16)
    discriminator = mlp.Discriminator(image_size=8, channels=1, width=16)
    return SSGAN(generator, discriminator, Hinge(), generator_weight=0.3, discriminator_weight=0.8)


def test_turns_are_quarters_of_a_circle() -> None:
    images = torch.rand(2, 3, 4, 4)
    rotated, quarters = turned(images)
    assert quarters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(rotated[:2], images)
    assert torch.equal(rotated[2:4], images.transpose(2, 3).flip(2))
    assert torch.equal(rotated[4:6], images.flip(2, 3))
    assert torch.equal(rotated[6:], images.transpose(2, 3).flip(3))


def test_every_fourth_image_is_asked_about_in_all_ways() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    game = ssgan()
    data = {"images": torch.rand(8, 1, 8, 8), "labels": torch.zeros(8, dtype=torch.int64)}
    turn = Turn(0, 0, Draws(seed, 0))
    of_discriminator = game.discriminator_terms(data, turn)
    assert {"accuracy_rotation", "real_logits"} <= set(turn.observations)
    of_generator = game.generator_terms(data, Turn(0, 0, Draws(seed, 0)))
    fakes = game.generator_side(Draws(seed, 0).normal(8, 5), data["labels"])
    judge = game.discriminator_side

    def lost(images: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row in (0, 4):
            for quarter in range(4):
                image = images[row : row + 1].rot90(quarter, (2, 3))
                answers = judge.readout(judge.features(image))[0]  # type: ignore[operator]
                total = total - answers.softmax(0)[quarter].log() / 8
        return total

    torch.testing.assert_close(of_discriminator["rotation"], 0.8 * lost(data["images"]))
    torch.testing.assert_close(of_generator["rotation"], 0.3 * lost(fakes))
    logits = judge(data["images"], data["labels"]), judge(fakes, data["labels"])
    adversarial = Hinge().discriminator_loss(*logits)
    torch.testing.assert_close(of_discriminator["adversarial"], adversarial)


def test_points_cannot_be_turned() -> None:
    generator = mlp.Generator(latent_dim=5, image_size=None, channels=2, width=16)
    discriminator = mlp.Discriminator(image_size=None, channels=2, width=16)
    with pytest.raises(ValueError, match="samples of 2 cannot be turned"):
        SSGAN(generator, discriminator, Hinge())


def test_what_reads_the_features_is_bounded_as_the_head_is() -> None:
    plain, normed = (
        ssgan(),
        SSGAN(sngan.Generator(4, 32, 1, width=2), sngan.Discriminator(32, 1, width=2), Hinge()),
    )
    assert not is_parametrized(plain.discriminator_side.readout)  # type: ignore[arg-type]
    readout = normed.discriminator_side.readout
    assert isinstance(readout, nn.Linear)
    assert is_parametrized(readout)
    for _ in range(20):
        _ = readout.weight
    assert torch.linalg.matrix_norm(readout.weight, ord=2).item() == pytest.approx(1, abs=1e-3)
