"""Each loss against the formula of its paper, written with probabilities and numpy in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ganforge.losses.f_divergence import Divergence, FDivergence
from ganforge.losses.hinge import Hinge
from ganforge.losses.label_smoothing import LabelSmoothing
from ganforge.losses.least_squares import LeastSquares
from ganforge.losses.loss import Loss
from ganforge.losses.minimax import Minimax
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.losses.relativistic import Relativistic
from ganforge.losses.relativistic_average import RelativisticAverage
from ganforge.losses.wasserstein import Wasserstein

CONF = Path(__file__).parents[2] / "conf" / "loss"
LOSSES: list[Loss] = [
    Minimax(),
    NonSaturating(),
    LeastSquares(),
    LeastSquares(a=-1, b=1, c=0),
    Wasserstein(),
    Hinge(),
    Relativistic(),
    RelativisticAverage(),
    LabelSmoothing(),
    LabelSmoothing(smoothing=0.3, flip=0.2),
    *(FDivergence(divergence) for divergence in get_args(Divergence)),
    *(FDivergence(divergence, saturating=False) for divergence in get_args(Divergence)),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def fresh(*shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(fresh_seed())
    )


def fresh_seed() -> int:
    return int(np.random.default_rng().integers(2**31))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def log_d(r: Any, f: Any) -> Any:
    return -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean()


def average(r: Any, f: Any) -> Any:
    return -np.log(sigmoid(r - f.mean())).mean() - np.log(1 - sigmoid(f - r.mean())).mean()


def smoothed(r: Any, f: Any, s: float, q: float) -> Any:
    """Every image's label drawn by lot, weighed by how probable the lot is."""
    total = 0.0
    for logits, label, other in ((r, 1 - s, 0.0), (f, 0.0, 1 - s)):
        for probability, t in ((1 - q, label), (q, other)):
            total -= (
                probability * (t * np.log(sigmoid(logits)) + (1 - t) * np.log(1 - sigmoid(logits))).mean()
            )
    return total


# Table 6 of Nowozin et al.: f(u), g_f(v), f*(t).
TABLE: dict[str, tuple[Any, Any, Any]] = {
    "kl": (lambda u: u * np.log(u), lambda v: v, lambda t: np.exp(t - 1)),
    "reverse_kl": (lambda u: -np.log(u), lambda v: -np.exp(-v), lambda t: -1 - np.log(-t)),
    "pearson": (lambda u: (u - 1) ** 2, lambda v: v, lambda t: t**2 / 4 + t),
    "neyman": (lambda u: (1 - u) ** 2 / u, lambda v: 1 - np.exp(-v), lambda t: 2 - 2 * np.sqrt(1 - t)),
    "squared_hellinger": (
        lambda u: (np.sqrt(u) - 1) ** 2,
        lambda v: 1 - np.exp(-v),
        lambda t: t / (1 - t),
    ),
    "jensen_shannon": (
        lambda u: -(u + 1) * np.log((1 + u) / 2) + u * np.log(u),
        lambda v: np.log(2) - np.log(1 + np.exp(-v)),
        lambda t: -np.log(2 - np.exp(t)),
    ),
}

Formula = Callable[[Any, Any], Any]
FORMULAS: list[tuple[Loss, Formula, Formula]] = [
    (Minimax(), log_d, lambda r, f: np.log(1 - sigmoid(f)).mean()),
    (NonSaturating(), log_d, lambda r, f: -np.log(sigmoid(f)).mean()),
    (
        LeastSquares(),
        lambda r, f: 0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
        lambda r, f: 0.5 * ((f - 1) ** 2).mean(),
    ),
    (
        LeastSquares(a=-1, b=1, c=0),
        lambda r, f: 0.5 * ((r - 1) ** 2).mean() + 0.5 * ((f + 1) ** 2).mean(),
        lambda r, f: 0.5 * (f**2).mean(),
    ),
    (Wasserstein(), lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    (
        Hinge(),
        lambda r, f: -np.minimum(0, r - 1).mean() - np.minimum(0, -f - 1).mean(),
        lambda r, f: -f.mean(),
    ),
    (
        Relativistic(),
        lambda r, f: -np.log(sigmoid(r - f)).mean(),
        lambda r, f: -np.log(sigmoid(f - r)).mean(),
    ),
    (RelativisticAverage(), average, lambda r, f: average(f, r)),
    (
        LabelSmoothing(smoothing=0.3, flip=0.2),
        lambda r, f: smoothed(r, f, 0.3, 0.2),
        lambda r, f: -np.log(sigmoid(f)).mean(),
    ),
    *(
        (
            FDivergence(name, saturating),
            lambda r, f, g=g, c=c: c(g(f)).mean() - g(r).mean(),
            lambda r, f, g=g, c=c, saturating=saturating: -(c(g(f)) if saturating else g(f)).mean(),
        )
        for name, (_, g, c) in TABLE.items()
        for saturating in (True, False)
    ),
]


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator"), FORMULAS, ids=[type(loss).__name__ for loss, *_ in FORMULAS]
)
def test_equals_its_paper(loss: Loss, discriminator: Formula, generator: Formula) -> None:
    real, fake = fresh(17), fresh(17)
    r, f = real.numpy(), fake.numpy()
    assert loss.discriminator_loss(real, fake).item() == pytest.approx(discriminator(r, f), rel=1e-8)
    assert loss.generator_loss(real, fake).item() == pytest.approx(generator(r, f), rel=1e-8)


@every_loss
def test_gradients_are_those_of_the_values(loss: Loss) -> None:
    real, fake = fresh(5).requires_grad_(), fresh(5).requires_grad_()
    assert torch.autograd.gradcheck(loss.discriminator_loss, (real, fake))
    assert torch.autograd.gradcheck(loss.generator_loss, (real, fake))


@every_loss
@pytest.mark.parametrize("real_sign", [-1, 1])
@pytest.mark.parametrize("fake_sign", [-1, 1])
def test_stays_finite_at_extreme_logits(loss: Loss, real_sign: int, fake_sign: int) -> None:
    real = (real_sign * 1e4 + torch.randn(6)).requires_grad_()
    fake = (fake_sign * 1e4 + torch.randn(6)).requires_grad_()
    for value in (loss.discriminator_loss(real, fake), loss.generator_loss(real, fake)):
        gradients = torch.autograd.grad(value, (real, fake), allow_unused=True)
        assert value.isfinite()
        assert all(g.isfinite().all() for g in gradients if g is not None)


@every_loss
def test_generator_uses_real_says_so(loss: Loss) -> None:
    real, fake, other = fresh(6), fresh(6), fresh(6)
    changes = not torch.equal(loss.generator_loss(real, fake), loss.generator_loss(other, fake))
    assert changes == loss.generator_uses_real
    if loss.generator_uses_real:
        with pytest.raises(AssertionError, match="generator_uses_real"):
            loss.generator_loss(None, fake)
    else:
        assert loss.generator_loss(None, fake).shape == ()


@every_loss
def test_a_better_critic_has_a_lower_loss_and_a_worse_generator(loss: Loss) -> None:
    at_a_draw = torch.zeros(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    real_slope, fake_slope = torch.autograd.grad(loss.discriminator_loss(*at_a_draw), at_a_draw)
    assert real_slope.sum() < 0 < fake_slope.sum() or isinstance(loss, LeastSquares)
    generator_slope = torch.autograd.grad(loss.generator_loss(*at_a_draw), at_a_draw[1])[0].sum()
    assert generator_slope < 0 or (isinstance(loss, LeastSquares) and loss.c == 0)


@settings(deadline=None)  # a first call loads code
@given(
    logits=st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=9),
    shift=st.floats(-20, 20),
)
def test_relativistic_losses_see_only_differences(logits: list[tuple[float, float]], shift: float) -> None:
    real, fake = torch.tensor(logits, dtype=torch.float64).unbind(dim=1)
    for loss in (Relativistic(), RelativisticAverage(), Wasserstein()):
        here = loss.discriminator_loss(real, fake)
        torch.testing.assert_close(loss.discriminator_loss(real + shift, fake + shift), here)
    for relativistic in (Relativistic(), RelativisticAverage()):  # and the players swap roles
        torch.testing.assert_close(
            relativistic.generator_loss(real, fake), relativistic.discriminator_loss(fake, real)
        )


@settings(deadline=None)  # a first call loads code
@given(logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9))
def test_minimax_is_a_zero_sum_game(logits: list[float]) -> None:
    fake, none = torch.tensor(logits), torch.full((1,), 1e6)  # D's real term is 0 there
    torch.testing.assert_close(
        Minimax().discriminator_loss(none, fake), -Minimax().generator_loss(None, fake)
    )


@pytest.mark.parametrize("name", TABLE)
def test_the_best_critic_of_an_f_divergence_measures_it(name: str) -> None:
    """-L_D at V = g⁻¹(f'(p/q)) is Σ q·f(p/q), and no other critic's is more (equation 4)."""
    f, g, _ = TABLE[name]
    rng = np.random.default_rng(fresh_seed())
    p, q = (each / each.sum() for each in rng.uniform(0.5, 2, (2, 5)))
    divergence = (q * f(p / q)).sum()
    slope = (f(p / q + 1e-6) - f(p / q - 1e-6)) / 2e-6
    levels = np.linspace(-8, 8, 160_001)
    best = levels[np.abs(g(levels)[:, None] - slope).argmin(axis=0)]
    loss = FDivergence(name)

    def bound(v: Any) -> float:
        logits = torch.tensor(v)
        each = [
            p[i] * loss._activation(logits[i]).item() - q[i] * loss._conjugate(logits[i]).item()
            for i in range(5)
        ]
        return float(sum(each))

    assert bound(best) == pytest.approx(divergence, abs=1e-6)
    for _ in range(20):
        assert bound(best + rng.normal(0, 1, 5)) < divergence


def test_a_logit_of_zero_is_a_draw_where_the_loss_says_so() -> None:
    """There the slopes of the real and the fake term are as steep: with as many of both, D stays."""
    for loss in LOSSES:
        at = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss.discriminator_loss(at, at), at)
        certain = isinstance(loss, LabelSmoothing)
        needs_both = isinstance(loss, Relativistic | RelativisticAverage | Wasserstein)
        assert needs_both or certain or (abs(slope.item()) < 1e-9) == loss.undecided_at_zero
        assert not (needs_both and loss.undecided_at_zero)


def test_wrong_numbers_are_named() -> None:
    for settings_, message in (
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"flip": 0.5}, "flip=0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            LabelSmoothing(**settings_)
    with pytest.raises(ValueError, match="divergence=chi: it can be kl, reverse_kl"):
        FDivergence("chi")  # type: ignore[arg-type]


def test_pairs_must_pair() -> None:
    with pytest.raises(AssertionError):
        Relativistic().discriminator_loss(fresh(4), fresh(1))


def test_only_wasserstein_needs_a_bounded_critic() -> None:
    assert [type(loss) for loss in LOSSES if loss.needs_lipschitz] == [Wasserstein]


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_names_a_loss_and_repeats_its_defaults(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    assert module == f"ganforge.losses.{path.stem}"
    kind = getattr(import_module(module), name)
    assert isinstance(kind(**config), Loss)
    defaults = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
    assert config == defaults
