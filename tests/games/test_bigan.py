"""BiGAN: pairs, both players' terms for every loss, and the slope over pairs, against brute force."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate

from ganforge.augmentations.flip_translate import FlipTranslate
from ganforge.draws import Draws
from ganforge.games.bigan import BiGAN
from ganforge.games.game import Turn
from ganforge.games.sampling import GameModel
from ganforge.losses.loss import Loss
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import mlp
from ganforge.penalties.consistency import Consistency
from ganforge.penalties.r1 import R1

pytestmark = pytest.mark.usefixtures("float64")

LOSSES = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))


def bigan(loss: Loss | None = None, **settings: Any) -> BiGAN:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "width": 16}
    generator = mlp.Generator(latent_dim=5, **facts)
    return BiGAN(generator, lambda: mlp.Discriminator(**facts), loss or NonSaturating(), width=12, **settings)


def moment(seed: int) -> Turn:
    return Turn(0, 0, Draws(seed, 0))


def played(game: BiGAN, seed: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A batch, and the pairs' logits of real and fake with all gradients."""
    labels = torch.zeros(6, dtype=torch.int64)
    data = {"images": torch.rand(6, 1, 8, 8), "labels": labels}
    side, judge = game.generator_side, game.discriminator_side
    z = Draws(seed, 0).normal(6, 5)
    logits = []
    for image, code in zip((data["images"], side(z, labels)), (side.encode(data["images"]), z), strict=True):
        rows = [torch.cat([image[i].flatten(), code[i]]) for i in range(6)]
        logits.append(judge(torch.stack(rows), labels))
    return data, logits[0], logits[1]


@pytest.mark.parametrize("path", LOSSES, ids=lambda path: path.stem)
def test_every_loss_is_of_pairs_and_teaches_generator_and_encoder(path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    loss: Loss = instantiate(yaml.safe_load(path.read_text()))
    game = bigan(loss)
    data, real, fake = played(game, seed)
    term = game.discriminator_terms(data, moment(seed))["adversarial"]
    torch.testing.assert_close(term, loss.discriminator_loss(real, fake))
    term.backward()
    assert all(p.grad is None for p in game.generator_side.parameters())
    game.discriminator_side.requires_grad_(False)
    of_generator = game.generator_terms(data, moment(seed))["adversarial"]
    of_generator.backward()
    # Where real pairs are told from fake ones, their logits have to fall and the others' to rise.
    heads = [(loss.middle + side * torch.rand(6)).requires_grad_() for side in (0.5, -0.5)]
    of_real, of_fake = torch.autograd.grad(game._generator_loss(*heads), heads)
    assert (of_real >= 0).all()
    assert of_real.any()
    assert (of_fake <= 0).all()
    assert of_fake.any()
    for network in (game.generator_side.generator, game.generator_side.linear):
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_nonsaturating_loss_is_the_papers() -> None:
    game = bigan()
    data, real, fake = played(game, 4)
    expected = -torch.sigmoid(fake).log().mean() - (1 - torch.sigmoid(real)).log().mean()
    term = game.generator_terms(data, moment(4))["adversarial"]
    torch.testing.assert_close(term, expected)


def test_penalties_are_of_the_slope_over_image_and_code() -> None:
    game = bigan(penalties={"r1": R1(gamma=2.0)})
    data, *_ = played(game, 4)
    images = data["images"].requires_grad_()
    codes = game.generator_side.encode(images).detach().requires_grad_()
    logits = game.discriminator_side(torch.cat([images.flatten(1), codes], 1), data["labels"])
    slopes = torch.autograd.grad(logits.sum(), (images, codes))
    expected = sum(slope.flatten(1).square().sum(1).mean() for slope in slopes)
    data["images"] = images.detach()
    torch.testing.assert_close(game.discriminator_terms(data, moment(4))["r1"], expected)


def test_pictures_are_images_and_their_reconstructions() -> None:
    game = bigan()
    real, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
    side = game.generator_side
    above, below = game.pictures(Draws(1, 0), labels, real=real)["reconstructions"]
    assert torch.equal(above, real)
    assert torch.equal(below, side(side.encode(real), labels))
    above, _ = game.pictures(Draws(1, 0), labels)["reconstructions"]
    assert torch.equal(above, game.sample(Draws(1, 0), labels))


def test_metrics_of_the_discriminator_see_images_with_the_mean_code() -> None:
    game = bigan()
    model = GameModel(game, game.generator_side, 0, "cpu")
    images, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
    features = model.discriminator_features(images, labels)
    pairs = torch.cat([images.flatten(1), torch.zeros(3, 5)], dim=1)
    assert features is not None
    torch.testing.assert_close(features, game.discriminator_side.features(pairs).float())


def test_penalties_that_change_images_are_refused() -> None:
    with pytest.raises(ValueError, match="penalty cr changes images, and game=bigan judges pairs"):
        bigan(penalties={"cr": Consistency(FlipTranslate())})
