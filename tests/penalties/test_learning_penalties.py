"""Penalties with a memory, of the generator's side or of both players: against their equations, and who learns."""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.networks.stylegan2 import Generator
from ganforge.penalties.balanced_consistency import BalancedConsistency
from ganforge.penalties.consistency import Consistency
from ganforge.penalties.feature_matching import FeatureMatching
from ganforge.penalties.latent_consistency import LatentConsistency
from ganforge.penalties.lecam import LeCam
from ganforge.penalties.moving_average import MovingAverage
from ganforge.penalties.path_length import PathLength, path_lengths
from ganforge.penalties.penalty import Penalty, Scene


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fresh inputs every time; where a test fails, what made them is printed."""
    torch.manual_seed(fresh := random.randrange(2**31))
    print(f"seed {fresh}")
    return fresh


def samples(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Linear(nn.Module):
    """z -> images z·A, the same for all labels but for a shift."""

    def __init__(self, latent_dim: int, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.matrix = nn.Parameter(samples(latent_dim, math.prod(shape)))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return (z.double() @ self.matrix + labels[:, None]).unflatten(1, self.shape)


class Styled(Linear):
    """w = z·B in three copies, each of which makes a third of the picture's pixels brighter."""

    def __init__(self, latent_dim: int, *shape: int) -> None:
        super().__init__(latent_dim, *shape)
        self.style = nn.Parameter(samples(latent_dim, latent_dim))

    def mapping(self, z: Tensor, labels: Tensor) -> Tensor:
        return (z.double() @ self.style)[:, None].expand(-1, 3, -1)

    def synthesis(self, w: Tensor) -> Tensor:
        return ((w / torch.tensor([1.0, 2.0, 3.0])[:, None]).sum(dim=1) @ self.matrix).unflatten(
            1, self.shape
        )


def scene(generator: nn.Module, critic: nn.Module, n: int = 6, latent_dim: int = 4) -> Scene:
    z, labels = torch.randn(n, latent_dim), torch.randint(3, (n,))
    fake = generator(z, labels)
    features = nn.Flatten()
    return Scene(generator, lambda x: critic(x).squeeze(1), features, labels, torch.randn_like(fake), z, fake)


def judge(*shape: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 5), nn.Tanh(), nn.Linear(5, 1)).double()


def test_a_moving_average_is_a_mean_at_first() -> None:
    average, expected = MovingAverage(decay=0.75), 0.0
    assert not average.known
    for step in range(10):
        figures = samples(2, 5)
        for micro_batch in figures:
            average.add(micro_batch)
        assert average.value.item() == pytest.approx(expected, abs=1e-6), (
            "a step's own figures wait for the others"
        )
        average.advance()
        rate = max(0.25, 1 / (step + 1))
        expected += rate * (figures.mean().item() - expected)
        assert average.value.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        if step % 3 == 0:
            average.advance()  # a round in which the penalty is not due
            assert average.value.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert average.known
    with pytest.raises(ValueError, match="decay=1"):
        MovingAverage(decay=1)


def test_lecam() -> None:
    penalty, real_anchor, fake_anchor = LeCam(weight=0.7, decay=0.9), 0.0, 0.0
    for step in range(5):
        real, fake = samples(6).requires_grad_(), samples(6).requires_grad_()
        value = penalty(real, fake)
        by_hand = sum((r - fake_anchor) ** 2 for r in real.tolist()) / 6
        by_hand += sum((f - real_anchor) ** 2 for f in fake.tolist()) / 6
        assert value.item() == pytest.approx(0.7 * by_hand if step else 0, rel=1e-5)
        slopes = torch.autograd.grad(value, (real, fake))
        expected = 0.7 * 2 * (real.detach() - fake_anchor) / 6 * bool(step)
        torch.testing.assert_close(slopes[0], expected, atol=1e-5, rtol=1e-4)
        penalty.advance()
        rate = max(0.1, 1 / (step + 1))
        real_anchor += rate * (real.mean().item() - real_anchor)
        fake_anchor += rate * (fake.mean().item() - fake_anchor)


@pytest.mark.parametrize("penalty", [LeCam(), PathLength(every=1)], ids=["lecam", "path_length"])
def test_what_was_learnt_is_in_the_state(penalty: Penalty, seed: int) -> None:
    generator = Linear(4, 1, 3, 3)

    def play(penalty: Penalty, k: int) -> float:
        if isinstance(penalty, LeCam):
            draws = Draws(seed, k)
            value = penalty(draws.normal(6), draws.normal(6))
        else:
            value = penalty(scene(generator, judge(1, 3, 3)), Draws(seed, k))
        penalty.advance()
        return value.item()

    whole, first, second = (copy.deepcopy(penalty) for _ in range(3))
    values = [play(whole, k) for k in range(6)]
    for k in range(3):
        play(first, k)
    second.load_state_dict(first.state_dict(), strict=True)
    assert [play(second, k) for k in range(3, 6)] == values[3:]


def test_consistency_is_between_an_image_and_its_change(seed: int) -> None:
    def doubled(images: Tensor, draws: Draws, images_seen: int) -> Tensor:
        return 2 * images

    critic, real, fake = judge(1, 3, 3), samples(6, 1, 3, 3), samples(6, 1, 3, 3)
    gaps = [
        sum((critic(x[i : i + 1]) - critic(2 * x[i : i + 1])).item() ** 2 for i in range(6)) / 6
        for x in (real, fake)
    ]
    plain = Consistency(doubled, weight=3)(critic, real, fake, Draws(seed, 0))
    assert plain.item() == pytest.approx(3 * gaps[0])
    balanced = BalancedConsistency(doubled, weight=3, weight_fake=5)(critic, real, fake, Draws(seed, 0))
    assert balanced.item() == pytest.approx(3 * gaps[0] + 5 * gaps[1])
    balanced.backward()
    assert all(p.grad is not None for p in critic[1:2].parameters())


def test_latent_consistency(seed: int) -> None:
    generator, critic = Linear(4, 1, 3, 3), judge(1, 3, 3)
    there = scene(generator, critic)
    penalty = LatentConsistency(weight=2, weight_discriminator=7, sigma=0.1)
    step = 0.1 * Draws(seed, 0).normal(6, 4).double()
    moved = (step @ generator.matrix).square().mean()
    value = penalty(there, Draws(seed, 0))
    assert value.item() == pytest.approx(-2 * moved.item(), rel=1e-4)
    value.backward()
    assert generator.matrix.grad is not None
    assert all(p.grad is None for p in critic.parameters())

    generator.matrix.grad = None
    there = scene(generator, critic)
    near = generator(there.z + step.float(), there.labels)
    of_critic = (critic(there.fake) - critic(near)).square().mean()
    value = penalty.of_discriminator(there, Draws(seed, 0))
    assert value.item() == pytest.approx(7 * of_critic.item(), rel=1e-4)
    value.backward()
    assert generator.matrix.grad is None
    assert critic[1].weight.grad.abs().sum() > 0


def test_feature_matching(seed: int) -> None:
    generator = Linear(4, 1, 3, 3)
    there = scene(generator, judge(1, 3, 3))
    gap = there.real.flatten(1).numpy().mean(0) - there.fake.detach().flatten(1).numpy().mean(0)
    value = FeatureMatching(weight=3)(there, Draws(seed, 0))
    assert value.item() == pytest.approx(3 * (gap**2).sum())
    value.backward()
    assert generator.matrix.grad is not None
    assert FeatureMatching.needs_real


def test_path_lengths_of_a_linear_map(seed: int) -> None:
    """J is the matrix itself: ‖Jᵀ y‖ by numpy, and E‖Jᵀ y‖² = ‖A‖²_F / (H·W)."""
    generator, points = Linear(4, 2, 3, 5), samples(6, 4).requires_grad_()
    images = generator(points, torch.zeros(6, dtype=torch.int64))
    lengths = path_lengths(images, points, Draws(seed, 0))
    y = Draws(seed, 0).normal(6, 2, 3, 5).double().flatten(1) / math.sqrt(15)
    torch.testing.assert_close(lengths, torch.linalg.vector_norm(y @ generator.matrix.T, dim=1))
    many = samples(4000, 4).requires_grad_()
    lengths = path_lengths(generator(many, torch.zeros(4000, dtype=torch.int64)), many, Draws(seed, 1))
    expected = generator.matrix.square().sum().item() / 15
    assert lengths.square().mean().item() == pytest.approx(expected, rel=0.1)


def test_path_lengths_of_copies_are_their_mean_square(seed: int) -> None:
    generator, points = Styled(4, 1, 3, 3), samples(6, 3, 4).requires_grad_()
    lengths = path_lengths(generator.synthesis(points), points, Draws(seed, 0))
    y = Draws(seed, 0).normal(6, 1, 3, 3).double().flatten(1) / 3
    of_one = torch.linalg.vector_norm(y @ generator.matrix.T, dim=1)
    torch.testing.assert_close(lengths, of_one * math.sqrt((1 + 1 / 4 + 1 / 9) / 3))


def test_path_length_is_taken_at_each_layers_own_style(seed: int) -> None:
    """The penalty of StyleGAN2's generator: with w itself its square would be larger by the number of layers."""
    generator = Generator(4, 16, 1, width=4, w_dim=6, depth=1, mixing=0.0)
    there, penalty = scene(generator, judge(1, 16, 16).float()), PathLength(weight=3)
    penalty(there, Draws(seed, 0))
    penalty.advance()
    draws = Draws(seed, 1)
    w = generator.mapping(draws.normal(6, 4), there.labels)
    layers = [w.clone() for _ in range(6)]
    images = generator.synthesis(torch.stack(layers, dim=1))
    y = draws.normal(6, 1, 16, 16) / 16
    slopes = torch.autograd.grad((images * y).sum(), layers)
    lengths = torch.stack(slopes).square().sum(dim=2).mean(dim=0).sqrt()
    by_hand = 3 * (lengths - penalty.average.value).square().mean()
    assert penalty(there, Draws(seed, 1)).item() == pytest.approx(by_hand.item(), rel=1e-4)


@pytest.mark.parametrize("kind", [Linear, Styled])
def test_path_length_keeps_lengths_near_their_average(kind: type[Linear], seed: int) -> None:
    generator, penalty = kind(4, 1, 3, 3), PathLength(weight=3, decay=0.9)
    there = scene(generator, judge(1, 3, 3))
    assert penalty(there, Draws(seed, 0)).item() == 0, "there is no average yet"
    penalty.advance()
    value = penalty(there, Draws(seed, 1))
    draws = Draws(seed, 1)
    z = draws.normal(6, 4).requires_grad_()
    points = generator.mapping(z, there.labels) if isinstance(generator, Styled) else z
    images = generator.synthesis(points) if isinstance(generator, Styled) else generator(points, there.labels)
    lengths = path_lengths(images, points, draws)
    by_hand = 3 * (lengths - penalty.average.value).square().mean()
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-6)
    value.backward()
    assert generator.matrix.grad.abs().sum() > 0
