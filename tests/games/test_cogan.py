"""CoGAN: what is shared, what the second domain is, and that each domain is a game of its own."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from ganforge.draws import Draws
from ganforge.games.cogan import CoGAN, edges, share_layers
from ganforge.games.game import Turn
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import dcgan, mlp, sngan
from ganforge.penalties.feature_matching import FeatureMatching, feature_distance

pytestmark = pytest.mark.usefixtures("float64")


def cogan(num_classes: int = 0, **settings: Any) -> CoGAN:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "width": 16, "num_classes": num_classes}
    return CoGAN(
        lambda: mlp.Generator(latent_dim=5, **facts),
        lambda: mlp.Discriminator(**facts),
        NonSaturating(),
        num_classes=num_classes,
        **settings,
    )


def batch(n: int = 6, classes: int = 1) -> dict[str, torch.Tensor]:
    return {"images": torch.rand(n, 1, 8, 8) * 2 - 1, "labels": torch.randint(classes, (n,))}


def test_generators_share_all_but_the_last_and_discriminators_all_but_the_first_layers() -> None:
    game = cogan()
    for side, own in ((game.generator_side, {"layers.4"}), (game.discriminator_side, {"layers.0"})):
        first, second = (dict(network.named_modules()) for network in side.networks)
        held = {name for name, m in first.items() if any(True for _ in m.parameters(recurse=False))}
        assert {name for name in held if first[name] is not second[name]} == own
        assert not torch.equal(*(m[next(iter(own))].weight for m in (first, second))), "begun apart"


def own_weights(first: nn.Module, second: nn.Module) -> list[str]:
    return [name for name, p in first.named_parameters() if p is not dict(second.named_parameters())[name]]


def test_a_norm_belongs_to_the_layer_before_it() -> None:
    facts: dict[str, Any] = {"image_size": 32, "channels": 1, "width": 4}
    first, second = (dcgan.Discriminator(**facts) for _ in range(2))
    share_layers(first, second, 2, last=False)
    assert own_weights(first, second) == [
        "layers.0.weight",
        "layers.2.weight",
        "layers.3.weight",
        "layers.3.bias",
    ]
    first, second = (sngan.Discriminator(**facts) for _ in range(2))
    share_layers(first, second, 1, last=False)
    names = own_weights(first, second)
    assert names
    assert all("conv1" in name or ".0." in name for name in names)


@pytest.mark.parametrize("own", [0, 3])
def test_layers_that_leave_nothing_to_share_are_refused(own: int) -> None:
    with pytest.raises(ValueError, match=rf"own={own}: of 3 layers .* keeps 1 to 2 for itself"):
        cogan(own_generator_layers=own)


def test_edges_are_the_brightest_less_the_darkest_neighbour() -> None:
    images = torch.rand(2, 1, 5, 6) * 2 - 1
    for row in range(5):
        for column in range(6):
            near = images[:, 0, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].flatten(1)
            expected = near.max(1).values - near.min(1).values - 1
            torch.testing.assert_close(edges(images)[:, 0, row, column], expected)


def test_every_second_image_is_of_the_second_domain_and_each_domain_has_its_networks() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    game, data = cogan(second="negatives"), batch()
    terms = game.discriminator_terms(data, Turn(0, 0, Draws(seed, 0)))
    of_generator = game.generator_terms(data, Turn(0, 0, Draws(seed, 0)))
    z, none = Draws(seed, 0).normal(6, 5), data["labels"][:1]
    logits: dict[str, list[torch.Tensor]] = {"real": [], "fake": []}
    for row in range(6):
        generator, judge = (side.networks[row % 2] for side in (game.generator_side, game.discriminator_side))
        image = data["images"][row : row + 1] * (-1) ** row
        logits["real"].append(judge(image, none))
        logits["fake"].append(judge(generator(z[row : row + 1], none), none))
    real, fake = (torch.cat(logits[kind]) for kind in ("real", "fake"))
    loss = NonSaturating()
    torch.testing.assert_close(terms["adversarial"], loss.discriminator_loss(real, fake))
    torch.testing.assert_close(of_generator["adversarial"], loss.generator_loss(None, fake))


def test_no_domain_is_left_out_of_batches_of_one() -> None:
    """As those of accumulate=... can be."""
    game, turn = cogan(), Turn(0, 0, Draws(random.randrange(2**32), 0))
    domains = [int(game._at_this_time(batch(1), turn)["labels"]) for _ in range(400)]
    assert 140 < sum(domains) < 260


def test_classes_can_be_the_second_domain() -> None:
    game, data = cogan(4, second=None, second_classes=[1, 3]), batch(classes=4)
    z = torch.randn(6, 5)
    images = game.generator_side(z, data["labels"])
    for row, label in enumerate(data["labels"]):
        own = game.generator_side.networks[int(label) % 2]
        torch.testing.assert_close(images[row], own(z[row : row + 1], label[None])[0])


def test_samples_are_of_the_first_domain_and_pairs_of_both() -> None:
    game = cogan(3)
    labels = torch.tensor([0, 2, 1, 1])
    first, second = game.generator_side.networks
    z = Draws(1, 0).normal(4, 5)
    assert torch.equal(game.sample(Draws(1, 0), labels), first(z, labels))
    pairs = game.pictures(Draws(1, 0), labels)["pairs"]
    assert torch.equal(pairs, torch.stack([first(z, labels), second(z, labels)]))


def test_features_are_matched_within_each_domain() -> None:
    game, data = cogan(penalties={"match": FeatureMatching(weight=1.0)}), batch()
    term = game.generator_terms(data, Turn(0, 0, Draws(3, 0)))["match"]
    first, second = game.discriminator_side.networks
    shown = torch.where(torch.arange(6).view(-1, 1, 1, 1) % 2 == 1, edges(data["images"]), data["images"])
    z = Draws(3, 0).normal(6, 5)
    fake = game.generator_side(z, torch.arange(6) % 2)

    def features(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([(first, second)[i % 2].features(images[i : i + 1]) for i in range(6)])  # type: ignore[operator]

    torch.testing.assert_close(term, feature_distance(features(shown), features(fake)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"second": "edges", "second_classes": [1]}, "is one or the other"),
        ({"second": None}, "is one or the other"),
        ({"second": "shadows"}, "second=shadows: it can be edges, negatives"),
        ({"second": None, "second_classes": [1]}, r"needs labels: add conditional=true"),
        ({"num_classes": 2, "second": None, "second_classes": [0, 1]}, "not all"),
    ],
)
def test_domains_that_are_none_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cogan(**settings)
