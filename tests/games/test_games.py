"""What holds of every game: found by listing conf/game, so a new one arrives tested."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor

from ganforge.commands import building, resolvers, schema
from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError
from ganforge.commands.options import config_folder
from ganforge.draws import Draws
from ganforge.games.game import Game, Turn
from ganforge.networks.freezing import blocks, freeze_

GAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "game").glob("*.yaml"))
N = 8

every_game = pytest.mark.parametrize("name", GAMES)


@functools.cache
def configured(*words: str) -> dict[str, Any]:
    """The settings of `ganforge train WORDS` with tiny networks."""
    schema.register()
    resolvers.register()
    GlobalHydra.instance().clear()
    sizes = [
        "loss=nonsaturating",
        "model.generator.width=8",
        "model.discriminator.width=8",
        "model.generator.latent_dim=16",
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        settings = plain(compose("train", [*sizes, *words]))
    if "autoencoder" in str(settings["game"]):
        settings["game"]["discriminator"]["width"] = 8
    return settings


def built(name: str, *words: str) -> Game:
    game = building.build(configured(f"game={name}", *words)["game"], "game")
    assert isinstance(game, Game)
    return game


def batch(labels: int, n: int = N) -> dict[str, Tensor]:
    return {"images": torch.rand(n, 1, 8, 8) * 2 - 1, "labels": torch.randint(max(labels, 1), (n,))}


def conditional(name: str) -> list[bool]:
    takes_labels = building.target_of(configured(f"game={name}")["game"], "game").takes_labels
    return [False, True] if takes_labels else [False]


def play(game: Game, rounds: int, labels: int) -> set[Tensor]:
    """Plays with Adam; the parameters that some gradient other than 0 has reached."""
    sides = {"discriminator": game.discriminator_side, "generator": game.generator_side}
    optimizers = {name: torch.optim.Adam(side.parameters(), lr=1e-3) for name, side in sides.items()}
    reached: set[Tensor] = set()
    for round_ in range(rounds):
        data, turn = batch(labels), Turn(round_ * N, round_, Draws(0, round_))
        for name, terms_of, after in (
            ("discriminator", game.discriminator_terms, game.after_discriminator_step),
            ("generator", game.generator_terms, game.after_generator_step),
        ):
            other = sides["generator" if name == "discriminator" else "discriminator"]
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            sides["discriminator"].requires_grad_(name == "discriminator")  # as training does
            terms = terms_of(data, turn)
            assert all(term.isfinite() and term.ndim == 0 for term in terms.values())
            torch.stack(list(terms.values())).sum().backward()
            assert all(p.grad is None for p in other.parameters())
            reached |= {p for p in sides[name].parameters() if p.grad is not None and p.grad.any()}
            optimizers[name].step()
            after()
        assert not any(value.requires_grad for value in turn.observations.values())
    return reached


@every_game
@pytest.mark.parametrize("words", [[], ["augment=diffaugment", "penalty=[r1]"]], ids=["plain", "dressed"])
def test_gradients_reach_every_parameter_of_both_sides(name: str, words: list[str]) -> None:
    for labelled in conditional(name):
        game = built(name, f"conditional={str(labelled).lower()}", *words)
        reached = play(game, 3, labels=10 if labelled else 0)
        missed = [
            name
            for side in (game.generator_side, game.discriminator_side)
            for name, parameter in side.named_parameters()
            if parameter not in reached
        ]
        assert not missed


@every_game
def test_samples_and_pictures_follow_the_draws_the_labels_and_the_weights(name: str) -> None:
    for labelled in conditional(name):
        game = built(name, f"conditional={str(labelled).lower()}").eval()
        other = copy.deepcopy(game)
        for parameter in other.generator_side.parameters():
            torch.nn.init.normal_(parameter)
        labels = torch.arange(6) % (10 if labelled else 1)
        real = batch(0, 6)["images"]
        with torch.no_grad():
            first = game.sample(Draws(1, 0), labels)
            assert first.shape == (6, 1, 8, 8)
            assert torch.equal(first, game.sample(Draws(1, 0), labels))
            assert not torch.equal(first, game.sample(Draws(2, 0), labels))
            theirs = game.sample(Draws(1, 0), labels, other.generator_side)
            assert torch.equal(theirs, other.sample(Draws(1, 0), labels))
            if labelled:
                assert not torch.equal(first, game.sample(Draws(1, 0), (labels + 1) % 10))
            for at_hand in (real, None):
                shown = game.pictures(Draws(1, 0), labels, real=at_hand)
                assert all(images.shape[2:] == (1, 8, 8) for images in shown.values())
                others = game.pictures(Draws(1, 0), labels, other.generator_side, real=at_hand)
                assert all(not torch.equal(shown[key], others[key]) for key in shown)


@every_game
def test_the_generator_side_makes_images_of_normal_latents(name: str) -> None:
    game = built(name)
    side: Any = game.generator_side.eval()
    images = side(torch.randn(5, side.latent_dim), torch.zeros(5, dtype=torch.int64))
    assert images.shape == (5, 1, 8, 8)
    assert images.abs().max() <= 1


@every_game
def test_points_are_played_for_or_refused(name: str) -> None:
    words = ["data=gaussian_ring", "model=mlp"]
    only_images = {"ssgan": "samples of 2 cannot be turned", "cogan": r"game\.second=negatives"}
    if name in only_images:
        with pytest.raises(UserError, match=only_images[name]):
            built(name, *words)
        if name == "ssgan":
            return
        words.append("game.second=negatives")
    game = built(name, *words)
    data = {"images": torch.randn(N, 2), "labels": torch.zeros(N, dtype=torch.int64)}
    for terms_of in (game.discriminator_terms, game.generator_terms):
        torch.stack(list(terms_of(data, Turn(0, 0, Draws(0, 0))).values())).sum().backward()
    assert game.sample(Draws(0, 0), data["labels"]).shape == (N, 2)


@every_game
def test_settings_for_speed_leave_the_terms_as_they_are(name: str) -> None:
    game = built(name, "model.discriminator.norm=none", "penalty=[r1]")
    data = batch(0)
    plain = game.discriminator_terms(data, Turn(0, 0, Draws(1, 0)))
    game.fused_pass = True  # type: ignore[assignment]
    fused = game.discriminator_terms(data, Turn(0, 0, Draws(1, 0)))
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    game.reuse_fakes = True  # type: ignore[assignment]
    with torch.autocast("cpu", torch.bfloat16):
        turn = Turn(0, 0, Draws(1, 0))
        for terms in (game.discriminator_terms(data, turn), game.generator_terms(data, turn)):
            assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
            torch.stack(list(terms.values())).sum().backward()


@every_game
def test_a_frozen_block_is_one_of_the_networks_that_a_game_is_made_of(name: str) -> None:
    """FreezeD's first block is the first layer's, and not the discriminator that a game has wrapped."""
    side = built(name).discriminator_side
    held = freeze_(side, 1)
    assert all(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in held), held
    rest = [name for name, p in side.named_parameters() if p.requires_grad]
    assert rest
    assert {id(p) for p in side.parameters()} == {
        id(p) for block in blocks(side) for part in block for p in side.get_submodule(part).parameters()
    }
    with pytest.raises(ValueError, match="as the last one has to learn"):
        freeze_(side, len(blocks(side)))


@every_game
def test_a_game_says_what_its_discriminator_makes_of_images(name: str) -> None:
    for labels in conditional(name):
        classes = 10 if labels else 0
        game = built(name, f"conditional={str(labels).lower()}").eval()
        before = copy.deepcopy(game.state_dict())
        images = batch(classes)
        real = game.logits_of_real(images["images"], images["labels"])
        fake = game.logits_of_generated(Draws(0, "looking"), images["labels"])
        assert real is not None
        assert fake is not None
        assert real.shape == fake.shape == (N,)
        assert real.isfinite().all()
        assert not real.requires_grad
        again = game.logits_of_real(images["images"][:3], images["labels"][:3])
        assert again is not None
        torch.testing.assert_close(again, real[:3], msg="each image is judged by itself")
        for key, tensor in game.state_dict().items():
            assert torch.equal(tensor, before[key]), key
