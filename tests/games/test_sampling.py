"""Labels in the data's proportions, and samples that depend on the seed, the labels and the batch size alone."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ganforge.draws import Draws
from ganforge.games.game import Game
from ganforge.games.sampling import generate, proportional_labels
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import dcgan

counts = st.lists(st.integers(0, 10_000), min_size=1, max_size=30).filter(any)


@given(counts=counts, n=st.integers(1, 3000))
def test_labels_have_the_datas_proportions(counts: list[int], n: int) -> None:
    labels = proportional_labels(counts, n)
    assert labels.shape == (n,)
    assert labels.dtype == torch.int64
    found = labels.bincount(minlength=len(counts)).double()
    wanted = torch.tensor(counts).double() / sum(counts) * n
    assert (found - wanted).abs().max() <= 1
    assert all(found[k] == 0 for k, count in enumerate(counts) if count == 0)
    assert all(found[k] >= 1 for k, share in enumerate(wanted.tolist()) if share >= 1.001)
    assert torch.equal(proportional_labels(counts, n), labels)


@given(classes=st.integers(2, 12), batches=st.integers(1, 8))
def test_each_batch_has_about_its_share_of_every_class(classes: int, batches: int) -> None:
    size = 20 * classes
    for labels in torch.split(proportional_labels([100] * classes, size * batches), size):
        assert (labels.bincount(minlength=classes) - 20).abs().max() <= 4


def test_without_classes_all_labels_are_zero() -> None:
    assert torch.equal(proportional_labels([], 5), torch.zeros(5, dtype=torch.int64))


def game() -> Game:
    generator = dcgan.Generator(latent_dim=6, image_size=8, channels=1, num_classes=4, width=4).eval()
    return Synthesis(generator, nn.Identity(), NonSaturating())


def collect(played: Game, labels: Tensor, seed: int, batch_size: int) -> Tensor:
    pairs = list(generate(played, played.generator_side, labels, seed=seed, batch_size=batch_size))
    assert torch.equal(torch.cat([mine for _, mine in pairs]), labels)
    assert {len(samples) for samples, _ in pairs[:-1]} <= {batch_size}
    return torch.cat([samples for samples, _ in pairs])


def test_samples_depend_on_the_seed_the_labels_and_the_batch_size_alone() -> None:
    played, labels, seed = game(), torch.randint(4, (23,)), random.randrange(2**32)
    samples = collect(played, labels, seed, batch_size=8)
    torch.rand(random.randrange(10))
    assert torch.equal(collect(played, labels, seed, batch_size=8), samples)
    assert not torch.equal(collect(played, labels, seed + 1, batch_size=8), samples)
    assert not samples.requires_grad

    # Asking for less gives the same beginning, and another label changes its own sample only.
    assert torch.equal(collect(played, labels[:16], seed, batch_size=8), samples[:16])
    changed = labels.clone()
    changed[3] = (labels[3] + 1) % 4
    different = (collect(played, changed, seed, batch_size=8) != samples).flatten(1).any(dim=1)
    assert different.nonzero().flatten().tolist() == [3]


def test_batch_k_draws_its_noise_from_the_seed_and_k() -> None:
    played, labels, seed = game(), torch.randint(4, (20,)), random.randrange(2**32)
    samples = collect(played, labels, seed, batch_size=8)
    z = Draws(seed, "generate/1").normal(8, 6)
    with torch.no_grad():
        torch.testing.assert_close(samples[8:16], played.generator_side(z, labels[8:16]))
