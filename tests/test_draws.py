"""A round's random numbers depend on the seed and the round, on nothing else, and ranks share them out."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ganforge.draws import Draws, derive_seed

Kind = Callable[[Draws, int], Tensor]
KINDS: dict[str, Kind] = {
    "normal": lambda draws, n: draws.normal(n, 3, 2),
    "uniform": lambda draws, n: draws.uniform(n, 2),
    "integers": lambda draws, n: draws.integers(7, n),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
seeds = st.integers(0, 2**40)


@every_kind
@given(seed=seeds, round_=st.integers(0, 10**7), n=st.integers(1, 9), world_size=st.integers(1, 4))
def test_the_slices_of_all_ranks_are_what_one_process_draws(
    kind: Kind, seed: int, round_: int, n: int, world_size: int
) -> None:
    """For the first request and the next ones."""
    alone = Draws(seed, round_)
    ranks = [Draws(seed, round_, rank, world_size) for rank in range(world_size)]
    for _ in range(3):
        together = torch.cat([kind(draws, n) for draws in ranks])
        assert torch.equal(together, kind(alone, n * world_size))


@every_kind
def test_a_round_does_not_know_what_was_drawn_before_it(kind: Kind) -> None:
    seed = random.randrange(2**32)
    in_order = {round_: kind(Draws(seed, round_), 4) for round_ in range(10)}
    for round_ in random.sample(range(10), 10):
        torch.rand(random.randrange(5))  # the global generator has no say either
        assert torch.equal(kind(Draws(seed, round_), 4), in_order[round_])


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draws = Draws(random.randrange(2**32), 0)
    draws.normal(3), draws.uniform(3), draws.integers(5, 3)
    assert torch.equal(torch.get_rng_state(), before)


@given(seed=seeds, other=seeds, round_=st.integers(0, 1000), other_round=st.integers(0, 1000))
def test_another_seed_or_round_gives_other_numbers(
    seed: int, other: int, round_: int, other_round: int
) -> None:
    numbers = Draws(seed, round_).normal(8)
    same = (seed, round_) == (other, other_round)
    assert torch.equal(Draws(other, other_round).normal(8), numbers) == same


def test_neighbouring_seeds_and_rounds_are_unrelated() -> None:
    seed = random.randrange(2**32)
    streams = torch.stack([Draws(seed + i, j).normal(4096) for i in range(4) for j in range(4)])
    correlation = torch.corrcoef(streams) - torch.eye(16)
    assert correlation.abs().max() < 6 / 4096**0.5


def test_values_have_the_promised_type_and_range() -> None:
    draws = Draws(random.randrange(2**32), "samples")
    normal, uniform, integers = draws.normal(5000, 2), draws.uniform(5000), draws.integers(3, 5000)
    assert normal.shape == (5000, 2)
    assert normal.dtype == uniform.dtype == torch.float32
    assert normal.mean().abs() < 0.06
    assert abs(normal.std() - 1) < 0.05
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    assert integers.dtype == torch.int64
    assert integers.bincount().tolist() == pytest.approx([5000 / 3] * 3, abs=250)


def test_seeds_are_valid_and_told_apart_by_their_parts() -> None:
    parts: list[tuple[int | str, ...]] = [
        (0, 0),
        (0, 1),
        (1, 0),
        (0, "0/0"),
        (0, "epoch", 1),
        (0, "epoch", 11),
        (0, "epoch1", 1),
    ]
    derived = {derive_seed(*p) for p in parts}
    assert len(derived) == len(parts)
    assert all(0 <= seed < 2**63 for seed in derived)


@given(seed=seeds, bound=st.floats(0.01, 5))
def test_truncated_numbers_stay_within_the_bound_and_the_others_as_they_are(seed: int, bound: float) -> None:
    """Exactly within it as float32 can say it, and at the same places as without a bound."""
    free, bounded = Draws(seed, 0).normal(500, 3), Draws(seed, 0, truncation=bound).normal(500, 3)
    assert bounded.dtype == torch.float32
    assert bounded.abs().max() <= torch.tensor(bound)
    within = free.abs() <= bound
    assert torch.equal(bounded[within], free[within])
    assert (bounded != free).sum() == (~within).sum()


@pytest.mark.parametrize("bound", [0.04, 0.5, 1.0, 2.0])
def test_truncated_numbers_have_the_truncated_normal_distribution(bound: float) -> None:
    seed = random.randrange(2**32)
    numbers = Draws(seed, "any", truncation=bound).normal(40_000).double().numpy()
    statistic = scipy.stats.kstest(numbers, scipy.stats.truncnorm(-bound, bound).cdf).statistic
    assert statistic < 2.5 / 40_000**0.5, seed  # beyond it once in 100,000 runs


@given(seed=seeds, world_size=st.integers(1, 4))
def test_ranks_share_truncated_numbers_too(seed: int, world_size: int) -> None:
    ranks = [Draws(seed, 0, rank, world_size, truncation=0.7) for rank in range(world_size)]
    together = torch.cat([draws.normal(5, 2) for draws in ranks])
    assert torch.equal(together, Draws(seed, 0, truncation=0.7).normal(5 * world_size, 2))


def test_a_bound_that_is_never_met_changes_nothing() -> None:
    seed = random.randrange(2**32)
    for bound in (40.0, float("inf")):
        assert torch.equal(Draws(seed, 0, truncation=bound).normal(1000), Draws(seed, 0).normal(1000))
