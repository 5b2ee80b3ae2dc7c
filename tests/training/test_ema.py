"""The moving average against the same thing written as a loop over tensors."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.training.ema import EMA


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def change(module: nn.Module) -> None:
    """As a round would: other weights, other statistics, one more batch counted."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    module(torch.randn(8, 3))


@pytest.mark.parametrize("ramp_up", [None, 0.05, 0.5])
def test_follows_like_a_loop_over_tensors(ramp_up: float | None) -> None:
    source = network()
    half_life_kimg, images = random.uniform(0.01, 1.0), 32
    ema = EMA(source, half_life_kimg, ramp_up)
    expected = copy.deepcopy(source).state_dict()
    for round_ in range(1, 8):
        change(source)
        ema.update(source, images_seen=round_ * images, images=images)
        half_life = half_life_kimg * 1000
        if ramp_up is not None:
            half_life = min(half_life, ramp_up * round_ * images)
        beta = 0.5 ** (images / half_life)
        for name, theirs in source.state_dict().items():
            mine = expected[name]
            expected[name] = beta * mine + (1 - beta) * theirs if mine.is_floating_point() else theirs.clone()
    torch.testing.assert_close(ema.average.state_dict(), expected)
    assert expected["1.num_batches_tracked"] == 7


def test_after_one_half_life_the_past_counts_half() -> None:
    source = nn.Linear(1, 1, bias=False)
    nn.init.constant_(source.weight, 0.0)
    ema = EMA(source, half_life_kimg=0.64, ramp_up=None)
    nn.init.constant_(source.weight, 1.0)
    for round_ in range(20):
        ema.update(source, images_seen=(round_ + 1) * 32, images=32)
    torch.testing.assert_close(ema.average.weight, torch.tensor([[0.5]]))


def test_a_half_life_of_zero_is_the_source_itself() -> None:
    source = network()
    ema = EMA(source, half_life_kimg=0.0)
    change(source)
    ema.update(source, images_seen=8, images=8)
    for name, tensor in source.state_dict().items():
        assert torch.equal(ema.average.state_dict()[name], tensor)


def test_the_average_is_only_sampled_from() -> None:
    source = network()
    ema = EMA(source, half_life_kimg=1.0)
    ema.train()
    assert source.training
    assert not any(module.training for module in ema.modules())
    assert not any(p.requires_grad for p in ema.average.parameters())
    before = [p.clone() for p in source.parameters()]
    ema.update(source, images_seen=8, images=8)
    assert all(torch.equal(a, b) for a, b in zip(before, source.parameters(), strict=True))


def test_goes_on_after_weights_are_loaded_or_moved() -> None:
    source = network()
    ema, fresh = EMA(source, half_life_kimg=1.0), EMA(source, half_life_kimg=1.0)
    change(source)
    ema.update(source, images_seen=8, images=8)
    fresh.load_state_dict(ema.state_dict())
    ema, source = ema.double(), source.double()
    fresh = fresh.double()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter))
    for one in (ema, fresh):
        one.update(source, images_seen=16, images=8)
    for mine, theirs in zip(ema.average.parameters(), fresh.average.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_negative_half_life_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"ema\.half_life_kimg=-1"):
        EMA(network(), half_life_kimg=-1)


def test_spectral_norm_is_that_of_the_averaged_weights() -> None:
    """Also where the largest singular vectors turn: with the average of theirs the norm would be 1.5 to 9."""
    torch.manual_seed(seed := random.randrange(2**31))
    print(f"seed {seed}")
    source = nn.Sequential(spectral_norm(nn.Linear(12, 8)), spectral_norm(nn.Conv2d(3, 6, 3)))
    ema = EMA(source, half_life_kimg=0.5, ramp_up=None)
    starts, ends = ([torch.randn_like(p) for p in source.parameters()] for _ in range(2))
    for round_ in range(100):
        with torch.no_grad():
            for parameter, start, end in zip(source.parameters(), starts, ends, strict=True):
                parameter.copy_(start.lerp(end, round_ / 99))
        _ = source[0].weight, source[1].weight  # as a pass in training mode
        ema.update(source, images_seen=8 * (round_ + 1), images=8)
    for layer in ema.average:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert norm.item() == pytest.approx(1, abs=0.2)
        assert not any(module.training for module in layer.modules())
