"""ProGAN: published size, the schedule of levels, fading, and that nothing but the images seen is its state."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.game import Turn
from ganforge.games.synthesis import Synthesis
from ganforge.losses.relativistic import Relativistic
from ganforge.losses.wasserstein import Wasserstein
from ganforge.networks import dcgan
from ganforge.networks.layers.growing import growth
from ganforge.networks.progan import Discriminator, Generator
from ganforge.penalties.gradient_penalty import GradientPenalty


def pair(num_classes: int = 0) -> tuple[Generator, Discriminator]:
    """16x16 images, so two levels beyond 4x4; the first begins at 100 images, the second at 300."""
    settings = {"width": 4, "stable_kimg": 0.1, "fade_kimg": 0.1}
    return Generator(6, 16, 3, num_classes, **settings), Discriminator(16, 3, num_classes, **settings)  # type: ignore[arg-type]


def test_published_size_at_1024() -> None:
    with torch.device("meta"):
        for network in (Generator(512, 1024, 3), Discriminator(1024, 3)):
            assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 23.1


def test_levels_come_one_by_one() -> None:
    stages = {0: 0.0, 99: 0.0, 100: 0.0, 150: 0.5, 200: 1.0, 299: 1.0, 350: 1.5, 400: 2.0, 10**9: 2.0}
    for images_seen, expected in stages.items():
        assert growth(images_seen, 0.1, 0.1, levels=2) == pytest.approx(expected)
    moments = sorted(random.sample(range(1000), 50))
    grown = [growth(n, 0.07, 0.13, levels=4) for n in moments]
    assert grown == sorted(grown)
    assert growth(0, 0.0, 0.0, levels=3) == 3
    assert growth(150, 0.1, 0.0, levels=3) == 1


@pytest.mark.parametrize(
    ("images_seen", "size"), [(0, 4), (100, 4), (101, 8), (300, 8), (301, 16), (999, 16)]
)
def test_images_are_of_the_stage_in_training_and_whole_in_evaluation(images_seen: int, size: int) -> None:
    generator, discriminator = pair()
    z, labels = torch.randn(4, 6), torch.zeros(4, dtype=torch.int64)
    for network in (generator, discriminator):
        network.grow(images_seen)
    small = generator(z, labels)
    assert small.shape == (4, 3, size, size)
    assert discriminator(small, labels).shape == (4,)
    assert discriminator.shrunk(torch.randn(4, 3, 16, 16)).shape == small.shape
    whole = generator.eval()(z, labels)
    assert whole.shape == (4, 3, 16, 16)
    torch.testing.assert_close(whole, F.interpolate(small, size=16).clamp(-1, 1))
    discriminator.eval()
    torch.testing.assert_close(
        discriminator(F.interpolate(small, size=16), labels), discriminator(small, labels)
    )


def test_a_level_fades_in_from_nothing() -> None:
    """At its first image a new level changes nothing, in the generator, in the critic and in what is real."""
    print(f"seed {torch.seed()}")
    generator, discriminator = pair()
    discriminator.deviation = nn.Identity()  # type: ignore[assignment]
    discriminator.conv = nn.Conv2d(16, 16, 3, padding=1)  # type: ignore[assignment]
    z, labels = torch.randn(4, 6), torch.zeros(4, dtype=torch.int64)
    real = torch.randn(4, 3, 16, 16)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for images_seen in (300, 301, 350, 400):
        generator.grow(images_seen)
        discriminator.grow(images_seen)
        if images_seen == 301:
            assert generator.alpha == discriminator.alpha == pytest.approx(0.01)
            generator.alpha.fill_(1e-6)
            discriminator.alpha.fill_(1e-6)
        whole = F.interpolate(generator(z, labels), size=16)
        shown = F.interpolate(discriminator.shrunk(real), size=16)
        seen.append((whole, shown, discriminator(discriminator.shrunk(real), labels)))
    before, begun, half, done = seen
    for index in range(3):
        torch.testing.assert_close(begun[index], before[index], rtol=1e-4, atol=1e-4)
        assert (done[index] - before[index]).abs().max() > 1e-3
    torch.testing.assert_close(half[0], (before[0] + done[0]) / 2)
    torch.testing.assert_close(half[1], (before[1] + done[1]) / 2)
    torch.testing.assert_close(done[1], real)


def test_networks_that_were_never_told_the_time_are_complete() -> None:
    generator, discriminator = pair()
    assert generator(torch.randn(2, 6), torch.zeros(2, dtype=torch.int64)).shape == (2, 3, 16, 16)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(discriminator.shrunk(images), images)


def test_the_images_seen_are_all_of_the_state() -> None:
    """A saved state, and an average that copies whole numbers, are at the same stage."""
    generator, _ = pair()
    generator.grow(130)
    other = pair()[0]
    other.load_state_dict(generator.state_dict())
    z, labels = torch.randn(3, 6), torch.zeros(3, dtype=torch.int64)
    assert torch.equal(other.eval()(z, labels), copy.deepcopy(generator).eval()(z, labels))
    assert not torch.equal(generator.eval()(z, labels), pair()[0].eval()(z, labels))


def game(**settings: object) -> Synthesis:
    generator, discriminator = pair(num_classes=3)
    return Synthesis(generator, discriminator, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("images_seen", [0, 130, 250, 320, 900])
def test_the_game_plays_at_the_stages_size(images_seen: int) -> None:
    played = game(loss=Relativistic(), penalties={"gp": GradientPenalty()})
    batch = {"images": torch.rand(4, 3, 16, 16) * 2 - 1, "labels": torch.tensor([0, 1, 2, 0])}
    turn = Turn(images_seen, 0, Draws(1, 0))
    for terms, side in (
        (played.discriminator_terms(batch, turn), played.discriminator_side),
        (played.generator_terms(batch, turn), played.generator_side),
    ):
        played.zero_grad()
        torch.autograd.backward(sum(terms.values()))
        level = -(-growth(images_seen, 0.1, 0.1, 2) // 1)
        for index, block in enumerate(side.blocks):  # type: ignore[arg-type]
            has = [p.grad is not None and bool(p.grad.any()) for p in block.parameters()]
            assert any(has) == (index < level)
    samples = played.eval().sample(Draws(1, "samples"), batch["labels"])
    assert samples.shape == (4, 3, 16, 16)


def test_both_players_grow_or_neither() -> None:
    generator, discriminator = pair()
    with pytest.raises(ValueError, match="model=progan"):
        Synthesis(generator, dcgan.Discriminator(16, 3, width=2), Wasserstein())
    with pytest.raises(ValueError, match="model=progan"):
        Synthesis(dcgan.Generator(6, 16, 3, width=2), discriminator, Wasserstein())
