"""Means over an interval, and the name of what was not finite."""

from __future__ import annotations

import random

import pytest
import torch

from ganforge.training.meter import Meter, NonFiniteLossError


def test_means_are_of_what_came_since_the_last_time() -> None:
    meter = Meter()
    for _ in range(2):
        n = random.randrange(1, 3 * Meter.fold_at)
        often, seldom = torch.randn(n), torch.randn(n // 5 + 1)
        for i, value in enumerate(often):
            meter.add("train/", {"often": value})
            if i < len(seldom):
                meter.add("train/", {"seldom": seldom[i]})
        means = meter.means()
        assert means == pytest.approx(
            {
                "train/often": often.double().mean().item(),
                "train/seldom": seldom[:n].double().mean().item(),
            }
        )
    assert meter.means() == {}


def test_a_long_interval_holds_few_tensors() -> None:
    meter = Meter()
    for _ in range(5 * Meter.fold_at):
        meter.add("", {"x": torch.ones(())})
    assert sum(map(len, meter._values.values())) < Meter.fold_at
    assert meter.means() == {"x": 1.0}


def test_collected_values_hold_no_graph() -> None:
    meter, weight = Meter(), torch.ones((), requires_grad=True)
    meter.add("", {"x": weight * 2})
    assert not meter._values["x"][0].requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_named(bad: float) -> None:
    meter = Meter()
    at = random.randrange(600)
    for i in range(600):
        meter.add(
            "train/discriminator/",
            {"adversarial": torch.randn(()), "r1": torch.tensor(bad if i == at else 1.0)},
        )
    with pytest.raises(NonFiniteLossError, match=r"train/discriminator/r1 became (nan|-?inf)"):
        meter.means()


def test_recent_are_the_last_elements_of_vectors_since_the_means_before() -> None:
    meter = Meter()
    for _ in range(2):
        n = random.randrange(1, 2 * Meter.fold_at)
        logits = torch.randn(n, 16)
        for row in logits:
            meter.add("d/", {"logits": row, "right": row > 0, "loss": row.mean()})
        meter.means()
        recent = meter.recent()
        assert list(recent) == ["d/logits"]
        torch.testing.assert_close(recent["d/logits"], logits.flatten()[-Meter.recent_at_most :])
    assert meter.recent() == {}
