"""The rules of image synthesis: who gets gradients, when penalties are due, and what a sample depends on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import Tensor, nn

from ganforge.augmentations.apa import AdaptivePseudoAugmentation
from ganforge.augmentations.augmentation import Augmentation
from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.sampling import GameModel
from ganforge.games.synthesis import Synthesis
from ganforge.losses.hinge import Hinge
from ganforge.losses.loss import Loss
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.losses.relativistic import Relativistic
from ganforge.networks import mlp
from ganforge.networks.heads.multi_hinge import MultiHinge
from ganforge.penalties.feature_matching import FeatureMatching
from ganforge.penalties.gradient_penalty import GradientPenalty, gradient_penalty
from ganforge.penalties.l2 import L2, l2
from ganforge.penalties.latent_consistency import LatentConsistency
from ganforge.penalties.layer_weights import layer_weights
from ganforge.penalties.orthogonal import Orthogonal
from ganforge.penalties.penalty import GeneratorPenalty, Penalty, Player, Projection
from ganforge.penalties.r1 import R1, r1
from ganforge.penalties.weight_clipping import WeightClipping
from ganforge.schedules import Exponential


def synthesis(loss: Loss | None = None, **penalties: Penalty) -> Synthesis:
    generator = mlp.Generator(latent_dim=5, image_size=8, channels=1, num_classes=3, width=16)
    discriminator = mlp.Discriminator(image_size=8, channels=1, num_classes=3, width=16)
    return Synthesis(generator, discriminator, loss or NonSaturating(), penalties)


def batch(n: int = 6) -> dict[str, Tensor]:
    return {"images": torch.rand(n, 1, 8, 8) * 2 - 1, "labels": torch.randint(3, (n,))}


def turn(round_: int = 0, seed: int = 0) -> Turn:
    return Turn(images_seen=round_ * 6, round=round_, draws=Draws(seed, round_))


def fresh_seed() -> int:
    return random.randrange(2**32)


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=lambda loss: type(loss).__name__)
def test_the_discriminators_terms_leave_the_generator_alone(loss: Loss) -> None:
    game = synthesis(loss, r1=R1(gamma=1.0), gp=GradientPenalty(), orthogonal=Orthogonal())
    torch.stack(list(game.discriminator_terms(batch(), turn()).values())).sum().backward()
    assert has_gradient(game.discriminator_side)
    assert all(p.grad is None for p in game.generator_side.parameters())


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=lambda loss: type(loss).__name__)
def test_the_generators_terms_reach_it_through_a_frozen_discriminator(loss: Loss) -> None:
    game = synthesis(loss)
    game.discriminator_side.requires_grad_(False)
    torch.stack(list(game.generator_terms(batch(), turn()).values())).sum().backward()
    assert has_gradient(game.generator_side)
    assert all(p.grad is None for p in game.discriminator_side.parameters())


def test_real_images_reach_the_generators_terms_only_where_the_loss_says_so() -> None:
    for loss in (Hinge(), Relativistic()):
        game, labels = synthesis(loss), torch.zeros(6, dtype=torch.int64)
        values = [
            game.generator_terms({"images": batch()["images"], "labels": labels}, turn())["adversarial"]
            for _ in range(2)
        ]
        assert game.generator_uses_real == loss.generator_uses_real
        assert torch.equal(*values) != loss.generator_uses_real


def test_the_terms_are_the_loss_and_the_penalties_of_what_was_drawn() -> None:
    game, data, seed = (
        synthesis(Hinge(), r1=R1(gamma=3.0), gp=GradientPenalty(weight=7.0)),
        batch(),
        fresh_seed(),
    )
    terms = game.discriminator_terms(data, turn(seed=seed))

    draws, real, labels = Draws(seed, 0), data["images"], data["labels"]
    fake = game.generator_side(draws.normal(len(real), 5), labels).detach()

    def critic(images: Tensor) -> Tensor:
        logits: Tensor = game.discriminator_side(images, labels)
        return logits

    expected = {
        "adversarial": Hinge().discriminator_loss(critic(real), critic(fake)),
        "r1": 3.0 / 2 * r1(critic, real),
        "gp": 7.0 * gradient_penalty(critic, real, fake, draws),
    }
    torch.testing.assert_close(terms, expected)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_lazy_penalties_come_in_due_rounds_only_and_scaled(every: int) -> None:
    eager = synthesis(r1=R1(gamma=2.0), orthogonal=Orthogonal(weight=0.1))
    lazy = Synthesis(
        eager.generator_side,
        eager.discriminator_side,
        NonSaturating(),
        {"r1": R1(gamma=2.0, every=every), "orthogonal": Orthogonal(weight=0.1, every=every)},
    )
    data = batch()
    for round_ in range(9):
        reference = eager.discriminator_terms(data, turn(round_))
        terms = lazy.discriminator_terms(data, turn(round_))
        assert torch.equal(terms["adversarial"], reference["adversarial"])
        for name in ("r1", "orthogonal"):
            if round_ % every == 0:
                torch.testing.assert_close(terms[name], every * reference[name])
            else:
                assert name not in terms


def test_a_projection_is_no_term_and_acts_after_the_step() -> None:
    game = synthesis(clipping=WeightClipping(clip=0.02))
    assert set(game.discriminator_terms(batch(), turn())) == {"adversarial"}
    before = [p.clone() for p in game.generator_side.parameters()]
    game.after_discriminator_step()
    assert all(p.abs().max() <= 0.02 for p in game.discriminator_side.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, game.generator_side.parameters(), strict=True))


def test_observations_are_what_the_discriminator_said() -> None:
    game, data, moment = synthesis(), batch(50), turn(seed=fresh_seed())
    game.discriminator_terms(data, moment)
    with torch.no_grad():
        logits = game.discriminator_side(data["images"], data["labels"])
    seen = moment.observations
    assert set(seen) == {"real_logits", "fake_logits", "accuracy_real", "accuracy_fake"}
    assert not any(value.requires_grad for value in seen.values())
    torch.testing.assert_close(seen["real_logits"], logits)
    assert torch.equal(seen["accuracy_real"], logits > 0)


def test_penalties_are_computed_in_float32_whatever_the_networks_run_in() -> None:
    game = synthesis(r1=R1(gamma=1.0), orthogonal=Orthogonal(weight=1.0))
    data, seed = batch(), fresh_seed()
    exact = game.discriminator_terms(data, turn(seed=seed))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = game.discriminator_terms(data, turn(seed=seed))
    assert torch.equal(mixed["r1"], exact["r1"])
    assert torch.equal(mixed["orthogonal"], exact["orthogonal"])
    assert mixed["adversarial"].dtype == torch.float32
    assert not torch.equal(mixed["adversarial"], exact["adversarial"])


def test_large_observations_are_reduced_at_once() -> None:
    moment, images = turn(), torch.rand(64, 3, 32, 32)
    moment.observe("brightness", images)
    torch.testing.assert_close(moment.observations["brightness"], images.mean())


def test_samples_follow_the_draws_and_the_labels() -> None:
    game, labels = synthesis(), torch.randint(3, (6,))
    seed = fresh_seed()
    first = game.sample(Draws(seed, "samples"), labels)
    assert first.shape == (6, 1, 8, 8)
    assert torch.equal(game.sample(Draws(seed, "samples"), labels), first)
    assert not torch.equal(game.sample(Draws(seed + 1, "samples"), labels), first)
    assert not torch.equal(game.sample(Draws(seed, "samples"), (labels + 1) % 3), first)


def test_samples_come_from_the_weights_that_are_asked_for() -> None:
    game, other = synthesis(), synthesis()
    labels = torch.randint(3, (6,))
    theirs = game.sample(Draws(1, 0), labels, other.generator_side)
    assert torch.equal(theirs, other.sample(Draws(1, 0), labels))
    assert not torch.equal(theirs, game.sample(Draws(1, 0), labels))


class Doubling(Augmentation):
    """Notes what it is asked for."""

    needs_images = False

    def __init__(self) -> None:
        super().__init__()
        self.times: list[int] = []
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        self.times.append(images_seen)
        return 2 * images

    def observe(self, real_logits: Tensor, images_seen: int) -> dict[str, Tensor]:
        self.seen.append(real_logits)
        return {"strength": torch.tensor(2.0)}


def test_both_players_steps_see_augmented_images() -> None:
    game, data, seed = synthesis(Hinge()), batch(), fresh_seed()
    augmented = Synthesis(game.generator_side, game.discriminator_side, Hinge(), augmentation=Doubling())
    moment = turn(3, seed)
    terms = augmented.discriminator_terms(data, moment)["adversarial"]
    draws, judge = Draws(seed, 3), game.discriminator_side
    for_generator = augmented.generator_terms(data, moment)["adversarial"]
    fakes = [game.generator_side(draws.normal(6, 5), data["labels"]) for _ in range(2)]
    real_logits = judge(2 * data["images"], data["labels"])
    expected = Hinge().discriminator_loss(real_logits, judge(2 * fakes[0], data["labels"]))
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(for_generator, -judge(2 * fakes[1], data["labels"]).mean())
    doubling = augmented.augmentation
    assert isinstance(doubling, Doubling)
    assert doubling.times == [18, 18, 18]
    torch.testing.assert_close(doubling.seen, [real_logits.detach()])
    assert moment.observations["strength"] == 2


def test_pseudo_real_images_leave_the_generator_alone() -> None:
    game, data = synthesis(), batch()
    deceiving = Synthesis(
        game.generator_side, game.discriminator_side, Hinge(), augmentation=AdaptivePseudoAugmentation(p=1.0)
    )
    seed = fresh_seed()
    term = deceiving.discriminator_terms(data, turn(seed=seed))["adversarial"]
    term.backward()
    assert all(p.grad is None for p in game.generator_side.parameters())
    draws, judge = Draws(seed, 0), game.discriminator_side
    fake = game.generator_side(draws.normal(6, 5), data["labels"])
    draws.uniform(6, 1, 1, 1)
    shown = game.generator_side(draws.normal(6, 5), data["labels"])
    expected = Hinge().discriminator_loss(judge(shown, data["labels"]), judge(fake, data["labels"]))
    torch.testing.assert_close(term, expected)


def test_a_head_that_is_a_loss_stands_in_for_it_alone() -> None:
    generator, data = mlp.Generator(latent_dim=5, image_size=8, channels=1, num_classes=3, width=16), batch()
    discriminator = mlp.Discriminator(image_size=8, channels=1, num_classes=3, width=16, head=MultiHinge)
    with pytest.raises(
        ValueError, match=r"MultiHinge is a form of the loss Hinge .* NonSaturating: loss=hinge"
    ):
        Synthesis(generator, discriminator, NonSaturating())
    game, seed = Synthesis(generator, discriminator, Hinge()), fresh_seed()
    terms = game.discriminator_terms(data, turn(seed=seed))
    fake = generator(Draws(seed, 0).normal(6, 5), data["labels"])
    features = (discriminator.features(images) for images in (data["images"], fake))
    torch.testing.assert_close(terms, discriminator.head.discriminator_terms(*features, data["labels"]))
    assert set(game.generator_terms(data, turn(seed=seed))) == {"adversarial"}


# What needs another discriminator than this page's has a test of its own.
PENALTIES = [
    path
    for path in sorted((Path(__file__).parents[2] / "conf" / "penalty").glob("*.yaml"))
    if path.stem != "reconstruction"
]


@pytest.mark.parametrize("path", PENALTIES, ids=lambda path: path.stem)
def test_each_player_has_the_terms_that_move_it(path: Path) -> None:
    game = synthesis(**instantiate(yaml.safe_load(path.read_text())))
    (penalty,) = game.penalties.values()
    assert isinstance(penalty, Penalty)
    for round_ in range(2):  # in the first one averages are not known yet
        moment = turn(round_ * penalty.every)
        terms = game.discriminator_terms(batch(), moment)
        of_generator = isinstance(penalty, GeneratorPenalty) and not penalty.has_discriminator_term
        assert (path.stem in terms) == (not of_generator and not isinstance(penalty, Projection))
        torch.stack(list(terms.values())).sum().backward()
        assert has_gradient(game.discriminator_side)
        assert not has_gradient(game.generator_side)
        game.discriminator_side.zero_grad()
        game.after_discriminator_step()

        game.discriminator_side.requires_grad_(False)
        terms = game.generator_terms(batch(), moment)
        assert (path.stem in terms) == isinstance(penalty, GeneratorPenalty)
        if path.stem in terms and round_:
            terms[path.stem].backward()
            assert has_gradient(game.generator_side)
        assert all(p.grad is None for p in game.discriminator_side.parameters())
        game.discriminator_side.requires_grad_(True)
        game.generator_side.zero_grad()
        game.after_generator_step()


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_penalties_of_weights_are_of_the_player_that_is_named(player: Player) -> None:
    game = synthesis(l2=L2(weight=0.5, player=player, every=3))
    sides = {"discriminator": game.discriminator_side, "generator": game.generator_side}
    terms = {"discriminator": game.discriminator_terms, "generator": game.generator_terms}
    for side, of_side in terms.items():
        assert "l2" not in of_side(batch(), turn(1))
        found = of_side(batch(), turn(3))
        assert ("l2" in found) == (side == player)
    torch.testing.assert_close(
        terms[player](batch(), turn(3))["l2"], 3 * 0.5 * l2(layer_weights(sides[player]))
    )


def test_reused_fakes_come_with_their_latents() -> None:
    game = synthesis(latent_consistency=LatentConsistency(sigma=0.0))
    game.reuse_fakes = True
    data, moment = batch(), turn(seed=fresh_seed())
    game.discriminator_terms(data, moment)
    assert game.generator_terms(data, moment)["latent_consistency"] == 0, "G(z) is what z makes"


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=lambda loss: type(loss).__name__)
def test_top_k_learns_from_the_fakes_judged_best(loss: Loss) -> None:
    plain, data, seed = synthesis(loss), batch(8), fresh_seed()
    sides = plain.generator_side, plain.discriminator_side
    with torch.no_grad():
        fake = plain.generator_side(Draws(seed, 0).normal(8, 5), data["labels"])
        logits = plain.discriminator_side(fake, data["labels"])
        real = plain.discriminator_side(data["images"], data["labels"])
    for images_seen, k in ((0, 8), (500, 6), (1000, 4), (9000, 4)):  # the share goes 1, √½, ½
        game = Synthesis(*sides, loss, top_k=Exponential(final=0.5, end_kimg=1.0))
        moment = Turn(images_seen=images_seen, round=0, draws=Draws(seed, 0))
        best = torch.stack(sorted(logits, reverse=True)[:k])
        expected = loss.generator_loss(real[:k], best)
        torch.testing.assert_close(game.generator_terms(data, moment)["adversarial"], expected)
    for value in (0.0, 1.5, Exponential(final=1.5, end_kimg=1.0)):
        with pytest.raises(ValueError, match="a share of the fakes"):
            Synthesis(*sides, loss, top_k=value)


def test_packs_are_neighbours_laid_over_one_another() -> None:
    generator = mlp.Generator(latent_dim=5, image_size=8, channels=1, width=16)
    discriminator = mlp.Discriminator(image_size=8, channels=3, width=16)
    penalties: dict[str, Penalty] = {"r1": R1(gamma=2.0), "zcr": LatentConsistency(), "fm": FeatureMatching()}
    game = Synthesis(generator, discriminator, Relativistic(), penalties, packing=3)
    data, seed = {"images": batch()["images"], "labels": torch.zeros(6, dtype=torch.int64)}, fresh_seed()
    moment = turn(seed=seed)
    terms = game.discriminator_terms(data, moment)

    def pack(images: Tensor) -> Tensor:
        return torch.stack([torch.cat(list(images[i : i + 3])) for i in (0, 3)])

    def critic(images: Tensor) -> Tensor:
        logits: Tensor = discriminator(images, data["labels"][:2])
        return logits

    fake = generator(Draws(seed, 0).normal(6, 5), data["labels"]).detach()
    logits = critic(pack(data["images"])), critic(pack(fake))
    torch.testing.assert_close(terms["adversarial"], Relativistic().discriminator_loss(*logits))
    torch.testing.assert_close(terms["r1"], r1(critic, pack(data["images"])))
    assert moment.observations["real_logits"].shape == (2,)
    assert {"zcr", "fm"} < set(game.generator_terms(data, moment))
    game.fused_pass = True
    torch.testing.assert_close(
        game.discriminator_terms(data, turn(seed=seed))["adversarial"], terms["adversarial"]
    )
    model = GameModel(game, generator, num_classes=0, device="cpu")
    features = model.discriminator_features(data["images"], data["labels"])
    assert features is not None
    assert features.shape == (6, 16)
