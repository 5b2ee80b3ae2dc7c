"""DDLS and DRS against densities known in closed form; truncation of styles; how samples are made, and its stamp."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.began import BEGAN
from ganforge.games.bigan import BiGAN
from ganforge.games.cogan import CoGAN
from ganforge.games.ddls import DDLS
from ganforge.games.drs import DRS, acceptance, excess
from ganforge.games.ebgan import EBGAN
from ganforge.games.infogan import InfoGAN
from ganforge.games.mad_gan import MADGAN
from ganforge.games.sampling import Manner, StyleTruncated, generate
from ganforge.games.sampling_method import Judged, SamplingMethod, judged
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import dcgan, mlp, stylegan2
from ganforge.networks.heads.minibatch_discrimination import MinibatchDiscriminationHead

METHODS: list[Callable[[], SamplingMethod]] = [
    lambda: DDLS(steps=3),
    lambda: DRS(burn_in=64),
    lambda: DRS(burn_in=64, gamma=0.0),
]


def fresh_seed() -> int:
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    return seed


def known(dims: int, logits: Callable[[Tensor], Tensor]) -> Judged:
    """A generator that is the identity, whose samples are standard normal, with this logarithm of a density ratio."""
    return Judged(dims, lambda z, labels: z, lambda z, x, labels: logits(x))


def drawn(method: SamplingMethod, of: Judged, number: int, *, seed: int, batch_size: int = 10_000) -> Tensor:
    labels = torch.zeros(number, dtype=torch.int64)
    sample = method(of, [], batch_size)
    return torch.cat([x for x, _ in generate(sample, labels, seed=seed, batch_size=batch_size)])


def within(found: Tensor, expected: float, error: float) -> None:
    """Five standard errors: once in a million."""
    assert abs(float(found) - expected) < 5 * error, (float(found), expected, error)


def test_langevin_steps_converge_to_the_density_of_a_gaussian_energy() -> None:
    """E(z) = z²/2 + (z - a)²/(2b): normal of precision 1 + 1/b; a step ε makes its variance v / (1 - ε / (4v))."""
    a, b, step, number = random.uniform(-2, 2), random.uniform(0.3, 2), 0.1, 20_000
    print(f"a {a}, b {b}")
    variance = 1 / (1 + 1 / b)
    target = known(2, lambda x: -((x - a).square() / (2 * b)).sum(dim=1))
    found = drawn(DDLS(steps=150, step_size=step), target, number, seed=fresh_seed()).double()
    exact = variance / (1 - step / (4 * variance))
    for axis in range(2):
        within(found[:, axis].mean(), variance * a / b, math.sqrt(exact / number))
        within(found[:, axis].var(), exact, exact * math.sqrt(2 / number))
    within(torch.corrcoef(found.T)[0, 1], 0, 1 / math.sqrt(number))


def test_without_noise_langevin_steps_climb_to_the_mode() -> None:
    target = known(1, lambda x: -(x[:, 0] - 3).square() / 2)
    found = drawn(DDLS(steps=200, step_size=0.2, noise=0.0), target, 50, seed=fresh_seed())
    torch.testing.assert_close(found, torch.full((50, 1), 1.5))


def test_no_langevin_steps_are_the_latents() -> None:
    seed = fresh_seed()
    found = drawn(DDLS(steps=0), known(3, lambda x: x[:, 0]), 5, seed=seed, batch_size=5)
    assert torch.equal(found, Draws(seed, "generate/0").normal(5, 3))


def test_langevin_steps_follow_the_discriminator_through_the_generator() -> None:
    """The slope in z is the chain rule's: against finite differences, in a small pair of networks."""
    torch.manual_seed(fresh_seed())
    net, critic = (
        nn.Linear(3, 4).double(),
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double(),
    )
    of = Judged(3, lambda z, labels: net(z), lambda z, x, labels: critic(x)[:, 0])
    z, labels, step = torch.randn(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), 1e-6

    def logits(z: Tensor) -> Tensor:
        return of.logits(z, of.images(z, labels), labels)

    with torch.no_grad():
        differences = [
            (logits(z + step * e) - logits(z - step * e)) / (2 * step) for e in torch.eye(3).double()
        ]
        torch.testing.assert_close(
            DDLS._slope(of, z, labels), torch.stack(differences, dim=1), rtol=1e-6, atol=1e-8
        )


def mixture_log_density(x: Tensor) -> Tensor:
    """0.3 N(-1, 0.4²) + 0.7 N(1.2, 0.3²)."""
    parts = [(0.3, -1.0, 0.4), (0.7, 1.2, 0.3)]
    logs = [math.log(w) - ((x - m) / s).square() / 2 - math.log(s) for w, m, s in parts]
    return torch.logsumexp(torch.stack(logs), dim=0) - math.log(2 * math.pi) / 2


def log_ratio(x: Tensor) -> Tensor:
    x = x[:, 0]
    return mixture_log_density(x) + x.square() / 2 + math.log(2 * math.pi) / 2


def shares_beyond(found: Tensor, density: Callable[[Tensor], Tensor]) -> None:
    """The share of samples in each of 24 cells is the integral of the density over it."""
    edges = torch.linspace(-3, 3, 25, dtype=torch.float64)
    points = (edges[:-1, None] + torch.linspace(0, 1, 201).double() * (edges[1] - edges[0])).flatten()
    cells = torch.trapezoid(density(points).view(24, 201), points.view(24, 201), dim=1)
    counts = torch.histogram(found[:, 0].double(), edges).hist / len(found)
    error = (cells.clamp(min=1e-9) / len(found)).sqrt()
    assert ((counts - cells).abs() < 5 * error + 1e-3 * cells + 2 / len(found)).all(), (counts, cells)


def test_rejection_by_the_exact_ratio_recovers_the_mixture() -> None:
    found = drawn(DRS(burn_in=20_000, gamma=0.0), known(1, log_ratio), 20_000, seed=fresh_seed())
    shares_beyond(found, lambda x: mixture_log_density(x).exp())


def test_rejection_with_gamma_has_the_density_that_its_acceptance_gives() -> None:
    """p(x) ∝ N(x; 0, 1) · sigmoid(F(x)), with γ the percentile of F."""
    of = known(1, log_ratio)
    burn_in = torch.cat([Draws(0, f"drs/{k}").normal(10_000, 1) for k in range(2)])
    largest = float(log_ratio(burn_in).max())
    gamma = float(excess(log_ratio(burn_in), largest).quantile(0.8))
    found = drawn(DRS(burn_in=20_000, gamma_percentile=80), of, 20_000, seed=fresh_seed())

    def unnormalised(x: Tensor) -> Tensor:
        chances = acceptance(log_ratio(x[:, None]), largest, gamma).double()
        return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi) * chances

    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    mass = torch.trapezoid(unnormalised(grid), grid)
    shares_beyond(found, lambda x: unnormalised(x) / mass)
    below_half = (acceptance(log_ratio(burn_in), largest, gamma) < 0.5).double().mean()
    within(below_half, 0.8, 1e-3)


def test_acceptance_without_gamma_is_the_ratio_to_the_largest() -> None:
    logits = torch.tensor([-40.0, -3.0, 0.0, 1.9, 2.0, 7.0])
    expected = (logits - 2).clamp(max=0).exp()
    torch.testing.assert_close(acceptance(logits, 2.0, 0.0), expected, rtol=1e-4, atol=1e-6)


def test_rejection_that_takes_nothing_gives_up() -> None:
    with pytest.raises(ValueError, match=r"too few were taken \(gamma=1e\+03\)"):
        drawn(DRS(burn_in=10, gamma=1000.0), known(1, lambda x: x[:, 0]), 4, seed=0, batch_size=4)


@pytest.mark.parametrize("make", METHODS)
def test_a_games_samples_follow_from_the_seed_and_the_share_of_the_ranks(
    make: Callable[[], SamplingMethod],
) -> None:
    torch.manual_seed(fresh_seed())
    generator = dcgan.Generator(latent_dim=6, image_size=8, channels=1, num_classes=4, width=4).eval()
    discriminator = dcgan.Discriminator(image_size=8, channels=1, num_classes=4, width=4)
    game = Synthesis(generator, discriminator, NonSaturating())
    labels, seed = torch.randint(4, (23,)), fresh_seed()

    def made(seed: int, **ranks: int) -> list[tuple[Tensor, Tensor]]:
        sample = make()(judged(game, generator), [1, 2, 3, 4], 16)
        torch.rand(random.randrange(9))
        return list(generate(sample, labels, seed=seed, batch_size=8, **ranks))

    alone = made(seed)
    assert torch.cat([x for x, _ in alone]).shape == (23, 1, 8, 8)
    assert torch.equal(torch.cat([y for _, y in alone]), labels)
    for rank in range(2):
        for (mine, _), (theirs, _) in zip(made(seed, rank=rank, ranks=2), alone[rank::2], strict=True):
            assert torch.equal(mine, theirs)
    assert not torch.equal(made(seed + 1)[0][0], alone[0][0])
    assert all(p.grad is None for p in game.parameters())


def test_rejected_samples_are_of_the_class_asked_for() -> None:
    of = Judged(
        1, lambda z, labels: labels[:, None] + 0.1 * z.tanh(), lambda z, x, labels: -x[:, 0].square() / 20
    )
    labels = torch.randint(5, (64,))
    (samples, _) = next(generate(DRS(burn_in=100, gamma=0.0)(of, [1] * 5, 64), labels, seed=1, batch_size=64))
    assert torch.equal(samples[:, 0].round().long(), labels)


def test_a_discriminator_that_compares_the_samples_of_a_batch_is_refused() -> None:
    generator = mlp.Generator(latent_dim=2, image_size=None, channels=2, width=8)
    discriminator = mlp.Discriminator(None, 2, width=8, head=MinibatchDiscriminationHead)
    with pytest.raises(
        ValueError, match=r"head \(MinibatchDiscriminationHead\) judges each sample by the others"
    ):
        judged(Synthesis(generator, discriminator, NonSaturating()), generator)


def test_a_game_of_packs_and_another_game_are_refused() -> None:
    generator = dcgan.Generator(latent_dim=6, image_size=8, channels=1, width=4)
    discriminator = dcgan.Discriminator(image_size=8, channels=2, width=4)
    with pytest.raises(ValueError, match=r"game\.packing=2"):
        judged(Synthesis(generator, discriminator, NonSaturating(), packing=2), generator)

    class Other(Synthesis):
        def sample(self, draws: Draws, labels: Tensor, generator_side: nn.Module | None = None) -> Tensor:
            return torch.zeros(0)

    with pytest.raises(ValueError, match=r"Other makes samples"):
        judged(Other(generator, discriminator, NonSaturating()), generator)


@pytest.mark.parametrize("kind", [BEGAN, EBGAN])
def test_energies_are_no_logits(kind: type[Synthesis]) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} gives energies"):
        judged(kind.__new__(kind), nn.Identity())


def networks() -> tuple[Callable[[], nn.Module], Callable[[], nn.Module]]:
    return (
        lambda: mlp.Generator(latent_dim=14, image_size=8, channels=1, width=8),
        lambda: mlp.Discriminator(image_size=8, channels=1, width=8),
    )


def bigan() -> Synthesis:
    generator, discriminator = networks()
    return BiGAN(generator(), discriminator, NonSaturating())


def cogan() -> Synthesis:
    return CoGAN(*networks(), NonSaturating())


def mad_gan() -> Synthesis:
    generator, discriminator = networks()
    return MADGAN(generator, discriminator(), NonSaturating())


def infogan() -> Synthesis:
    generator, discriminator = networks()
    return InfoGAN(generator(), discriminator(), NonSaturating())


@pytest.mark.parametrize("make", [bigan, cogan, mad_gan, infogan])
@pytest.mark.parametrize("method", METHODS)
def test_games_of_other_networks_are_sampled_by_their_discriminators_logits(
    method: Callable[[], SamplingMethod], make: Callable[[], Synthesis]
) -> None:
    """Those that the game itself gives its generator's fakes."""
    torch.manual_seed(fresh_seed())
    game = make()
    side, labels = game.generator_side, torch.zeros(6, dtype=torch.int64)
    of = judged(game, side)
    samples = method()(of, [], 16)(Draws(0, "x"), labels)
    assert samples.shape == (6, 1, 8, 8)
    z = torch.randn(6, of.latent_dim)
    made = side(z, labels)
    torch.testing.assert_close(of.logits(z, made, labels), game._judge(game._told(made, z), labels)[0])


def test_langevin_steps_leave_a_choice_as_it_was_drawn() -> None:
    """x = z0 + 4·1[z1 > 0], which no slope leads over: normal about either end, in even shares."""
    of = Judged(
        2,
        lambda z, labels: z[:, :1] + 4 * (z[:, 1:] > 0),
        lambda z, x, labels: -(x[:, 0] - 4 * (z[:, 1] > 0) - 1).square() / 2,
    )
    number, seed = 5000, fresh_seed()
    found = DDLS(steps=100, step_size=0.1).latents(of, Draws(seed, 0), torch.zeros(number, dtype=torch.int64))
    assert torch.equal(found[:, 1], Draws(seed, 0).normal(number, 2)[:, 1])
    for side in (found[:, 1] > 0, found[:, 1] < 0):
        within(found[side, 0].mean(), 0.5, math.sqrt(0.53 / int(side.sum())))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDLS(steps=-1), "steps=-1"),
        (lambda: DDLS(step_size=0), "step_size=0"),
        (lambda: DDLS(noise=-1), "noise=-1"),
        (lambda: DRS(burn_in=1), "burn_in=1"),
        (lambda: DRS(gamma_percentile=101), "gamma_percentile=101"),
        (lambda: Manner(truncation=0), "truncation=0"),
        (lambda: Manner(truncation_psi=1.5), "truncation_psi=1.5"),
        (lambda: Manner(batch_norm="none"), "batch_norm=none"),  # type: ignore[arg-type]
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def styles(num_classes: int) -> stylegan2.Generator:
    torch.manual_seed(fresh_seed())
    return stylegan2.Generator(6, 8, 1, num_classes, width=4, max_width=8, w_dim=8, depth=2).eval()


@pytest.mark.parametrize("num_classes", [0, 3])
def test_truncated_styles_are_those_of_the_generator(num_classes: int) -> None:
    generator = styles(num_classes)
    z, labels = torch.randn(7, 6), torch.randint(max(1, num_classes), (7,))
    with torch.no_grad():
        for psi in (0.0, 0.6):
            truncated = StyleTruncated(generator, psi, num_classes)
            torch.testing.assert_close(truncated(z, labels), generator(z, labels, truncation=psi))
        assert torch.equal(StyleTruncated(generator, 1.0, num_classes)(z, labels), generator(z, labels))
        means = StyleTruncated(generator, 0.0, num_classes).means
        many = generator.mapping(torch.randn(40_000, 6), torch.zeros(40_000, dtype=torch.int64))
        error = many.std(dim=0) * math.sqrt(1 / 4096 + 1 / 40_000)
        assert ((means[0] - many.mean(dim=0)).abs() < 6 * error).all()


def test_a_generator_without_styles_is_refused() -> None:
    with pytest.raises(ValueError, match=r"truncation_psi=0\.5: .*dcgan has no styles"):
        StyleTruncated(dcgan.Generator(6, 8, 1, width=4), 0.5, 0)


def test_the_manner_of_sampling_is_stamped_where_it_is_out_of_the_ordinary() -> None:
    plain = dcgan.Generator(6, 8, 1, num_classes=2, width=4)
    usual = {"labels": "the data's frequencies", "truncation": None, "batch_norm": "running"}
    assert Manner().facts(plain, [3, 5], 64) == usual
    found = Manner(0.7, 0.5, "standing", balanced=True).facts(plain, [3, 5], 64)
    assert found == {
        "labels": "balanced",
        "truncation": 0.7,
        "truncation_psi": 0.5,
        "batch_norm": "standing",
        "batch_size": 64,
    }
    assert Manner(balanced=True).classes([3, 5]) == [1, 1]
    assert Manner().classes([3, 5]) == [3, 5]


def test_truncated_noise_is_truncated_normal() -> None:
    """Moments and quantiles against scipy's truncated normal distribution."""
    stats = pytest.importorskip("scipy.stats")
    bound, number = random.uniform(0.3, 2), 200_000
    found = Draws(fresh_seed(), "x", truncation=bound).normal(number).double()
    law = stats.truncnorm(-bound, bound)
    within(found.mean(), 0, math.sqrt(law.var() / number))
    within(found.var(), law.var(), math.sqrt((law.moment(4) - law.var() ** 2) / number))
    assert stats.kstest(found.numpy(), law.cdf).pvalue > 1e-6
