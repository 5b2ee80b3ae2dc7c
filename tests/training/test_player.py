"""Settings of an optimizer that change in time: against optimizers that were made with those of each moment."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from ganforge.schedules import Constant, Cosine, Linear
from ganforge.training.player import Player, optimizer_ends


def test_settings_are_those_of_the_time() -> None:
    rate, beta = Cosine(initial=2e-4, final=5e-5, end_kimg=20), Cosine(initial=0.9, final=0.99, end_kimg=20)
    adam = functools.partial(torch.optim.Adam, lr=rate, betas=[0.0, beta], weight_decay=Linear(end_kimg=40))
    player = Player(adam, Linear(final=0.5, end_kimg=10))
    optimizer = player.start([nn.Parameter(torch.zeros(2))])
    for kimg in (7.0, 0.0, 31.0):
        player.set_time(optimizer, kimg)
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(rate(kimg) * max(0.5, 1 - 0.05 * kimg))
        assert group["betas"] == (0.0, beta(kimg))
        assert group["weight_decay"] == pytest.approx(max(0.0, 1 - kimg / 40))
    assert [o([nn.Parameter(torch.zeros(2))]).defaults["betas"][1] for o in optimizer_ends(adam)] == [
        0.9,
        0.99,
    ]


def test_steps_are_those_of_the_settings_of_the_time() -> None:
    """Adam's update by hand, with a second moment whose decay changes from step to step."""
    beta, rate = Linear(initial=0.9, final=0.99, end_kimg=3), 1e-2
    player = Player(functools.partial(torch.optim.Adam, lr=rate, betas=[0.0, beta], eps=0.0), Constant())
    weight = nn.Parameter(torch.randn(5, dtype=torch.float64))
    optimizer, mine, second = (
        player.start([weight]),
        weight.detach().clone(),
        torch.zeros(5, dtype=torch.float64),
    )
    for kimg in range(4):
        weight.grad = torch.randn(5, dtype=torch.float64)
        player.set_time(optimizer, kimg)
        optimizer.step()
        second = beta(kimg) * second + (1 - beta(kimg)) * weight.grad**2
        mine -= rate * weight.grad / (second / (1 - beta(kimg) ** (kimg + 1))).sqrt()
        torch.testing.assert_close(weight.detach(), mine)


def test_plain_settings_are_left_alone() -> None:
    player = Player(lambda parameters: torch.optim.SGD(parameters, lr=0.5), Linear(end_kimg=2))
    optimizer = player.start([nn.Parameter(torch.zeros(2))])
    player.set_time(optimizer, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)
    assert len(optimizer_ends(player.optimizer)) == 1
