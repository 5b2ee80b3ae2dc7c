"""Modes covered and their KL divergence: closed forms, stacked digits read back, and samples of the data themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ganforge.datasets.stacked import StackedSamples, stacked_digits
from ganforge.evaluation.digits import Digits
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.metric import Metric
from ganforge.evaluation.metrics.modes import Modes, class_shares, kl_divergence
from ganforge.evaluation.sample import Sample
from ganforge.evaluation.stacked import Stacked

Evaluate = Callable[..., dict[str, float]]


def sample(classes: Tensor, number: int, labels: Tensor | None = None) -> Sample:
    """Samples that are read as these classes, int64 (N,)."""
    logits = torch.randn(len(classes), number).clamp(max=4)
    logits[torch.arange(len(classes)), classes] = 5
    return Sample(len(classes), torch.zeros(len(classes), 2), logits, labels=labels, classifies=True)


def test_k_even_modes_of_even_data_have_the_kl_log_of_the_share_that_is_missing(
    generator: torch.Generator,
) -> None:
    """KL(q || p) = log(K / k)."""
    number = 40
    real = sample(torch.zeros(number, dtype=torch.int64), number, labels=torch.arange(number))
    for k in (1, 7, 40):
        chosen = torch.randperm(number, generator=generator)[:k]
        found = Modes()(sample(chosen.repeat(3), number), real)
        assert found["modes"] == k
        assert found["modes_kl"] == pytest.approx(math.log(number / k), abs=1e-12)


def test_kl_divergence_against_a_sum_written_out(generator: torch.Generator) -> None:
    counts = torch.randint(0, 9, (30,), generator=generator)
    shares = torch.rand(30, generator=generator, dtype=torch.float64)
    shares /= shares.sum()
    total = int(counts.sum())
    expected = sum(
        c / total * math.log(c / total / p)
        for c, p in zip(counts.tolist(), shares.tolist(), strict=True)
        if c
    )
    assert kl_divergence(counts, shares) == pytest.approx(expected, abs=1e-12)
    assert kl_divergence(torch.tensor([1, 0]), torch.tensor([0.0, 1.0]).double()) == math.inf


def test_shares_of_independent_parts_are_products(generator: torch.Generator) -> None:
    parts = [torch.randint(0, 4, (500,), generator=generator) for _ in range(3)]
    labels = 16 * parts[0] + 4 * parts[1] + parts[2]
    marginals = [part.bincount(minlength=4).double() / 500 for part in parts]
    expected = torch.einsum("a,b,c->abc", *marginals).flatten()
    torch.testing.assert_close(class_shares(labels, 64, 3), expected)
    torch.testing.assert_close(class_shares(labels, 64, 1), labels.bincount(minlength=64).double() / 500)
    with pytest.raises(ValueError, match=r"independent=3: 65 classes"):
        class_shares(labels, 65, 3)
    with pytest.raises(ValueError, match=r"independent=0"):
        Modes(0)


@pytest.fixture(scope="module")
def data() -> StackedSamples:
    return stacked_digits(size=4000)


@pytest.fixture
def evaluate(data: StackedSamples, tmp_path: Path) -> Evaluate:
    """Figures of uint8 pictures (N, 3, 8, 8), by the shipped classifier, against the stacked digits."""

    def call(images: Tensor, metric: Metric | None = None) -> dict[str, float]:
        evaluator = FeatureEvaluator(
            Stacked(Digits()), {"stacked_modes": metric or Modes(3)}, 100, 100, cache_dir=str(tmp_path / "c")
        )
        evaluator.prepare(data, "cpu")
        return evaluator.evaluate(batches(images), conditional=False)

    return call


def batches(images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part in torch.split(images, 300):
        yield part / 127.5 - 1, torch.zeros(len(part), dtype=torch.int64)


@pytest.fixture(scope="module")
def clear_digits(data: StackedSamples) -> Tensor:
    """Of each digit the picture that the classifier is surest of, uint8 (10, 8, 8)."""
    extractor = Digits()
    extractor.prepare(None, "cpu", None)  # type: ignore[arg-type]
    with torch.no_grad():
        logits = extractor.extract(data.parts.data)[1].log_softmax(dim=1)
    return data.parts.data[logits.argmax(dim=0), 0]


@pytest.mark.parametrize("k", [1, 37, 1000])
def test_a_generator_of_k_known_modes_has_k_and_their_kl(
    k: int, evaluate: Evaluate, data: StackedSamples, clear_digits: Tensor, generator: torch.Generator
) -> None:
    """Mode number j is made w_j times: KL = sum q log(q / p), p the product of the digits' shares in each channel."""
    modes = torch.randperm(1000, generator=generator)[:k]
    times = torch.randint(1, 5, (k,), generator=generator) + (4 if k == 1 else 0)
    classes = modes.repeat_interleave(times)
    made = torch.stack([clear_digits[classes // place % 10] for place in (100, 10, 1)], dim=1)
    found = evaluate(made[torch.randperm(len(made), generator=generator)])
    shares = [
        data.parts.labels[data.picks[:, place]].bincount(minlength=10) / len(data) for place in range(3)
    ]
    q = times.double() / times.sum()
    p = [shares[0][m // 100] * shares[1][m // 10 % 10] * shares[2][m % 10] for m in modes.tolist()]
    expected = sum(float(qk) * math.log(float(qk) / float(pk)) for qk, pk in zip(q, p, strict=True))
    assert found["modes"] == k
    assert found["modes_kl"] == pytest.approx(expected, abs=1e-5)


def test_the_data_themselves_cover_nearly_all_modes(evaluate: Evaluate) -> None:
    """KL is about (K - 1) / (2 n), and the classifier's mistakes change little of it."""
    number = 8000
    images = stacked_digits(size=number, seed=1)
    found = evaluate(images.batch(torch.arange(number)))
    assert found["modes"] >= 990
    assert 0.8 * 999 / (2 * number) < found["modes_kl"] < 1.3 * 999 / (2 * number) + 0.002


def test_the_class_is_the_number_that_the_channels_make(data: StackedSamples) -> None:
    extractor = Stacked(Digits())
    extractor.prepare(data, "cpu", None)  # type: ignore[arg-type]
    images = data.batch(torch.arange(500))
    features, logits = extractor.extract(images)
    assert features.shape == (500, 3 * 64)
    assert logits is not None
    assert (logits.argmax(dim=1) == data.labels[:500]).double().mean() > 0.95
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(500))
    inner, _ = extractor.classifier.extract(images[:, 1:2])
    torch.testing.assert_close(features[:, 64:128], inner)
    assert extractor.classifies(data)


def test_a_checkpoints_memory_gives_the_same_figures(data: StackedSamples, tmp_path: Path) -> None:
    def fresh() -> FeatureEvaluator:
        return FeatureEvaluator(Stacked(Digits()), {"m": Modes(3)}, 100, 100, cache_dir=str(tmp_path / "c"))

    first, second = fresh(), fresh()
    first.prepare(data, "cpu")
    second.load_state(first.state())
    second.prepare(None, "cpu")
    images = data.batch(torch.arange(900))
    scores = first.evaluate(batches(images), conditional=False)
    assert second.evaluate(batches(images), conditional=False) == scores
    assert first.stamp() == second.stamp()
    assert first.stamp()["extractor"]["classifier"] == "digits"


def test_data_that_are_not_stacked_and_grey_samples_are_refused(
    evaluate: Evaluate, digits: object, tmp_path: Path
) -> None:
    evaluator = FeatureEvaluator(Stacked(Digits()), {"m": Modes(3)}, 100, 100, cache_dir=str(tmp_path / "c"))
    with pytest.raises(ValueError, match=r"metrics=stacked needs .* not digits"):
        evaluator.prepare(digits, "cpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"several channels"):
        evaluate(torch.zeros(9, 1, 8, 8, dtype=torch.uint8))
