"""Augmentations against what they say they do, one image at a time; what p steers; and that nothing leaks."""

from __future__ import annotations

import copy
import inspect
import math
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from ganforge.augmentations import ada, pixels
from ganforge.augmentations.ada import AdaptiveDiscriminatorAugmentation, _color_matrix
from ganforge.augmentations.apa import AdaptivePseudoAugmentation
from ganforge.augmentations.augmentation import Augmentation
from ganforge.augmentations.controller import Controller
from ganforge.augmentations.diffaugment import DiffAugment
from ganforge.augmentations.flip_translate import FlipTranslate
from ganforge.augmentations.instance_noise import InstanceNoise
from ganforge.draws import Draws
from ganforge.schedules import Linear

CONF = Path(__file__).parents[2] / "conf" / "augment"
FILES = sorted(CONF.glob("*.yaml"))
every_augmentation = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Fresh inputs every time; where a test fails, what made them is printed."""
    torch.manual_seed(fresh := random.randrange(2**31))
    print(f"seed {fresh}")
    return fresh


def make(path: Path, **settings: Any) -> Augmentation:
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    if "p" in config:
        settings = {"p": 0.9, **settings}  # as after a while
    augmentation: Augmentation = getattr(import_module(module), name)(**{**config, **settings})
    return augmentation


def images(n: int = 6, channels: int = 3, size: int = 8) -> Tensor:
    return 2 * torch.rand(n, channels, size, size) - 1


@every_augmentation
def test_the_configuration_repeats_the_defaults(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    defaults = {
        k: list(p.default) if isinstance(p.default, tuple) else p.default for k, p in parameters.items()
    }
    assert config == defaults


@every_augmentation
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gradients_pass_through_to_every_image(path: Path, channels: int, seed: int) -> None:
    augmentation, x = make(path), images(channels=channels).requires_grad_()
    y = augmentation(x, Draws(seed, 0), 0)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.isfinite().all()
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    assert slope.isfinite().all()
    assert (slope.flatten(1).abs().sum(dim=1) > 0).all()


@every_augmentation
def test_the_round_decides_and_ranks_share_it(path: Path, seed: int) -> None:
    augmentation, x, fakes = make(path), images(32), images(32)

    def both(x: Tensor, fakes: Tensor, draws: Draws) -> Tensor:
        return augmentation(augmentation.shown_as_real(x, lambda: fakes, draws, 0), draws, 0)

    whole = both(x, fakes, Draws(seed, 0))
    assert torch.equal(both(x, fakes, Draws(seed, 0)), whole)
    assert not all(torch.equal(both(x, fakes, Draws(seed, round_)), whole) for round_ in range(1, 5))
    shares = [
        both(x.chunk(2)[rank], fakes.chunk(2)[rank], Draws(seed, 0, rank, world_size=2)) for rank in (0, 1)
    ]
    torch.testing.assert_close(torch.cat(shares), whole)


@every_augmentation
def test_where_it_does_nothing_it_does_nothing(path: Path, seed: int) -> None:
    """To the last bit: a run with p at 0 is a run without."""
    nothing = {"p": 0.0, "sigma": 0.0, "kinds": [], "flip": False, "shift": 0.0}
    config = yaml.safe_load(path.read_text())
    off = {
        key: value
        for key, value in nothing.items()
        if key in config and not (key == "kinds" and "p" in config)
    }
    for channels in (1, 3):
        augmentation, x = make(path, **off), images(channels=channels)
        shown = augmentation.shown_as_real(x, lambda: images(6, 1), Draws(seed, 0), 0)
        assert torch.equal(augmentation(shown, Draws(seed, 0), 0), x)


# -- pixels


def test_blit_is_flip_turn_and_shift() -> None:
    x = images(12, size=5)
    flip, quarters = torch.rand(12) < 0.5, torch.randint(4, (12,))
    shift = torch.randint(-2, 3, (12, 2))
    result = pixels.blit(x, flip, quarters, shift)
    for i in range(12):
        one = torch.rot90(x[i].flip(2) if flip[i] else x[i], int(quarters[i]), (1, 2))
        down, right = shift[i].tolist()
        wide = F.pad(one, (2, 2, 2, 2), mode="reflect")
        assert torch.equal(result[i], wide[:, 2 - down : 7 - down, 2 - right : 7 - right])


def test_translate_fills_with_grey() -> None:
    x, shift = images(12, size=5), torch.randint(-3, 4, (12, 2))
    result = pixels.translate(x, shift)
    for i in range(12):
        down, right = shift[i].tolist()
        wide = F.pad(x[i], (3, 3, 3, 3))
        assert torch.equal(result[i], wide[:, 3 - down : 8 - down, 3 - right : 8 - right])


def test_the_filter_is_orthogonal_to_its_even_shifts_and_so_is_undone() -> None:
    taps = torch.tensor(pixels.SYM6, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-9)
    for k in range(6):
        assert (taps[2 * k :] @ taps[: 12 - 2 * k]).item() == pytest.approx(float(k == 0), abs=1e-9)
    x = images(3, size=24).double()
    up, down = pixels._resampling(24)
    there_and_back = down @ (up @ x @ up.T) @ down.T
    flat = torch.ones(24, dtype=torch.float64)
    torch.testing.assert_close(up @ flat, torch.ones(48, dtype=torch.float64))
    torch.testing.assert_close(there_and_back[..., 5:-5, 5:-5], x[..., 5:-5, 5:-5], atol=1e-8, rtol=0)


def test_a_warp_moves_a_blob_to_where_the_map_says() -> None:
    """Centres of mass, against the map itself; and gradients are those of the values."""
    n = 32
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inverse = torch.eye(3, dtype=torch.float64).repeat(20, 1, 1)
    inverse[:, :2, :2] += 0.3 * torch.randn(20, 2, 2, dtype=torch.float64).clamp(-1, 1)
    inverse[:, :2, 2] = 0.2 * torch.rand(20, 2, dtype=torch.float64)
    source = torch.tensor([0.1, -0.15, 1.0], dtype=torch.float64)
    places = torch.linalg.solve(inverse, source)
    blob = torch.exp(-((x - source[0]) ** 2 + (y - source[1]) ** 2) / 0.01).expand(20, 1, n, n)
    moved = pixels.warp(blob, inverse).squeeze(1)
    inside = places[:, :2].abs().amax(dim=1) < 0.5
    mass = moved.sum(dim=(1, 2))
    centre = torch.stack([(moved * x).sum(dim=(1, 2)) / mass, (moved * y).sum(dim=(1, 2)) / mass], dim=1)
    assert inside.any()
    assert (centre - places[:, :2])[
        inside
    ].abs().max() < 1.5 * 2 / n  # the filter is half a pixel off symmetry
    small = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: pixels.warp(s, inverse[:2]), small)


def test_colours_turn_about_grey() -> None:
    x = images(4).double()
    zero, one = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    grey = x.mean(dim=1, keepdim=True)
    third = torch.full_like(zero, math.tau / 3)

    def recolored(
        brightness: Tensor, contrast: Tensor, over: Tensor, hue: Tensor, saturation: Tensor
    ) -> Tensor:
        return pixels.recolor(x, _color_matrix(brightness, contrast, over, hue, saturation))

    expected = {
        "brightness": (recolored(zero + 0.3, one, zero, zero, one), x + 0.3),
        "contrast": (recolored(zero, one * 2, zero, zero, one), 2 * x),
        "luma": (recolored(zero, one, one, zero, one), x - 2 * grey),
        "saturation": (recolored(zero, one, zero, zero, zero), grey.expand_as(x)),
        "hue": (recolored(zero, one, zero, third, one), x.roll(1, dims=1)),
        "order": (recolored(zero + 0.3, one * 2, one, zero, 3 * one), 6 * (x - grey) - 2 * (grey + 0.3)),
    }
    for name, (result, by_hand) in expected.items():
        torch.testing.assert_close(result, by_hand, msg=name)


# -- the augmentations


def test_diffaugment_by_hand(seed: int) -> None:
    x = images(5, size=16)
    u = Draws(seed, 0).uniform(5, 7)
    result = DiffAugment()(x, Draws(seed, 0), 0)
    for i in range(5):
        one = x[i] + u[i, 0] - 0.5
        one = (one - one.mean(0)) * 2 * u[i, 1] + one.mean(0)
        one = (one - one.mean()) * (0.5 + u[i, 2]) + one.mean()
        down, right = (int(5 * u[i, k]) - 2 for k in (3, 4))
        one = F.pad(one, (2, 2, 2, 2))[:, 2 - down : 18 - down, 2 - right : 18 - right].clone()
        top, left = (int(17 * u[i, k]) - 4 for k in (5, 6))
        one[:, max(top, 0) : top + 8, max(left, 0) : left + 8] = 0
        torch.testing.assert_close(result[i], one)


def test_instance_noise_fades(seed: int) -> None:
    noise, x = InstanceNoise(sigma=Linear(initial=0.5, final=0.0, end_kimg=2)), images(64)
    for seen, sigma in ((0, 0.5), (500, 0.375), (2000, 0.0), (9000, 0.0)):
        added = noise(x, Draws(seed, 0), seen) - x
        assert added.std().item() == pytest.approx(sigma, rel=0.05)


def test_apa_shows_a_share_p_of_fresh_fakes_as_real(seed: int) -> None:
    augmentation = AdaptivePseudoAugmentation(p=0.3)
    real, fake = torch.zeros(2000, 2), torch.ones(2000, 2)
    shown = augmentation.shown_as_real(real, lambda: fake, Draws(seed, 0), 0)
    assert torch.equal(shown[:, 0], shown[:, 1])
    assert shown[:, 0].mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(augmentation(fake, Draws(seed, 0), 0), fake)


def test_a_scheduled_p_is_that_of_the_time(seed: int) -> None:
    p = Linear(initial=0.0, final=0.8, end_kimg=2)
    ada, apa = (
        kind(p=p, target=None) for kind in (AdaptiveDiscriminatorAugmentation, AdaptivePseudoAugmentation)
    )
    x = images(6)
    for seen, now in ((0, 0.0), (1000, 0.4), (5000, 0.8)):
        held = AdaptiveDiscriminatorAugmentation(p=now, target=None)
        assert torch.equal(ada(x, Draws(seed, 0), seen), held(x, Draws(seed, 0), 0))
        real, fake = torch.zeros(2000, 2), torch.ones(2000, 2)
        shown = apa.shown_as_real(real, lambda fake=fake: fake, Draws(seed, 0), seen)  # type: ignore[misc]
        assert shown.mean().item() == pytest.approx(now, abs=0.05)
        assert ada.observe(torch.randn(6), seen)["ada_p"].item() == pytest.approx(now)


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_ada_makes_each_change_with_probability_p(p: float, seed: int) -> None:
    x = images(4000, channels=1, size=4)
    # Both turns together have p; half of the times luma stays as it is.
    for kind, untouched in (("geometric", (1 - p) ** 4), ("color", (1 - p) ** 3)):
        y = AdaptiveDiscriminatorAugmentation(p=p, kinds=[kind])(x, Draws(seed, 0), 0)
        share = (y == x).flatten(1).all(dim=1).float().mean().item()
        assert (
            untouched - 0.04 < share < untouched + 0.04 + (0.5 * p * (1 - p) ** 2 if kind == "color" else 0)
        )


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_ada_mirrors_and_turns_with_probability_p(p: float, seed: int) -> None:
    """At 4x4 no whole pixel is shifted; half of the mirrorings and a quarter of the turns are by nothing."""
    x = images(4000, channels=1, size=4)
    y = AdaptiveDiscriminatorAugmentation(p=p, kinds=["blit"])(x, Draws(seed, 0), 0)
    share = (y == x).flatten(1).all(dim=1).float().mean().item()
    assert share == pytest.approx((1 - p / 2) * (1 - 3 * p / 4), abs=0.04)


def test_ada_moves_as_strongly_as_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the maps: sizes by 2^N(0, 0.2²), axes apart by twice that, shifts by an eighth of the width, any turn."""
    maps: list[Tensor] = []

    def warp(images: Tensor, inverse: Tensor) -> Tensor:
        maps.append(torch.linalg.inv(inverse.double()))
        return images

    monkeypatch.setattr(ada, "warp", warp)
    n = 20_000
    ada._moved(images(n, channels=1, size=4), torch.tensor(1.0), torch.rand(n, 7), torch.randn(n, 4))
    sizes = torch.linalg.svdvals(maps[0][:, :2, :2]).log2()
    assert sizes.mean(dim=1).std().item() == pytest.approx(0.2, rel=0.05)
    apart = sizes[:, 0] - sizes[:, 1]
    assert apart.square().mean().sqrt().item() == pytest.approx(0.4, rel=0.05)
    shift = maps[0][:, :2, 2] / 2  # in widths
    assert shift.std().item() == pytest.approx(0.125, rel=0.05)
    assert shift.mean().item() == pytest.approx(0, abs=0.01)
    turn = torch.atan2(maps[0][:, 1, 0] - maps[0][:, 0, 1], maps[0][:, 0, 0] + maps[0][:, 1, 1])
    assert turn.std().item() == pytest.approx(math.tau / math.sqrt(12), rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_ada_colours_as_strongly_as_the_paper(channels: int) -> None:
    n = 20_000
    u, g = torch.rand(n, 7), torch.randn(n, 3)

    def of(color: Tensor) -> Tensor:
        shown = color.view(1, channels, 1, 1).expand(n, -1, 1, 1).double()
        return ada._recolored(shown, torch.tensor(1.0), u, g).flatten(1)

    black, white = of(torch.zeros(channels)), of(torch.ones(channels))
    factor = (white - black).mean(dim=1)
    assert factor.abs().log2().std().item() == pytest.approx(0.5, rel=0.05)
    assert (factor < 0).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (black.mean(dim=1) / factor).std().item() == pytest.approx(0.2, rel=0.05)
    if channels == 3:
        hue = (of(torch.tensor([2.0, -1.0, -1.0])) - black) / factor[:, None]
        saturation = hue.norm(dim=1) / math.sqrt(6)
        assert saturation.log2().std().item() == pytest.approx(1.0, rel=0.05)
        assert (hue[:, 0] > 0).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_ada_does_not_leak_below_p_1(seed: int) -> None:
    """The mean of what is shown tells the images' own way up as long as p < 1: the change of distributions can be
    undone. At p = 1 all eight ways look alike, and fakes may come out in any.
    """
    x = images(1, channels=1, size=4)
    ways = torch.cat([torch.rot90(y, k, (2, 3)) for y in (x, x.flip(3)) for k in range(4)]).double()
    crowd = x.repeat(40_000, 1, 1, 1)
    symmetric = ways.mean(dim=0)
    for p in (0.3, 0.8):
        mean = (
            AdaptiveDiscriminatorAugmentation(p=p, kinds=["blit"])(crowd, Draws(seed, 0), 0)
            .double()
            .mean(dim=0)
        )
        distances = (ways - mean).square().flatten(1).sum(dim=1)
        assert distances.argmin() == 0, (p, distances)
    everything = AdaptiveDiscriminatorAugmentation(p=0.5)(crowd, Draws(seed, 1), 0).double().mean(dim=0)
    likeness = ((ways - symmetric) * (everything - everything.mean())).flatten(1).sum(dim=1)
    assert likeness.argmax() == 0, likeness
    # A turn by quarters alone: at p = 1 each of four has 1/4, of which the mean is the same from any way up.
    turned = pixels.blit(
        crowd,
        torch.zeros(len(crowd)).bool(),
        torch.randint(4, (len(crowd),)),
        torch.zeros(len(crowd), 2).long(),
    )
    torch.testing.assert_close(turned.double().mean(dim=0), ways[:4].mean(dim=0), atol=0.03, rtol=0)


def test_ada_keeps_the_antisymmetric_part_by_one_minus_p(seed: int) -> None:
    """The mirror alone, in closed form: E[T x] = (1 - p/2) x + p/2 flip(x), whose odd part is (1 - p) that of x."""
    x = images(1, channels=1, size=4)
    x = x + torch.rot90(x, 2, (2, 3))  # turns by a half change nothing
    crowd = x.repeat(40_000, 1, 1, 1)
    p = 0.6
    flips = (torch.rand(len(crowd)) < p) & (torch.rand(len(crowd)) < 0.5)
    none = torch.zeros(len(crowd), dtype=torch.int64)
    mean = pixels.blit(crowd, flips, none, torch.stack([none, none], dim=1)).mean(dim=0)
    odd = (x - x.flip(3))[0]
    torch.testing.assert_close(mean - mean.flip(2), (1 - p) * odd, atol=0.05, rtol=0)


# -- the controller


def by_hand(logits: list[Tensor], batch: int, target: float, speed: int, every: int) -> list[float]:
    p, last, since, trace = 0.0, 0, [], []
    for k, values in enumerate(logits):
        seen = k * batch
        if since and seen - last >= every:
            mean = sum(since) / len(since)
            direction = (mean > target) - (mean < target)
            p, last, since = min(max(p + direction * (seen - last) / speed, 0.0), 1.0), seen, []
        since += [math.copysign(1.0, value) for value in values.tolist()]
        trace.append(p)
    return trace


@pytest.mark.parametrize("ranks", [1, 2])
def test_p_follows_the_signs(ranks: int) -> None:
    batch, rounds = 8, 60
    logits = [torch.randn(batch) + (3 if k < 35 else -1) for k in range(rounds)]
    expected = by_hand(logits, batch, target=0.6, speed=200, every=16)
    controllers = [Controller(0.0, 0.6, speed_kimg=0.2, every_kimg=0.016) for _ in range(ranks)]
    for k, values in enumerate(logits):
        for controller, share in zip(controllers, values.chunk(ranks), strict=True):
            p = controller.observe(share, k * batch)["p"]
            assert p.item() == pytest.approx(expected[k], abs=1e-6)
        mean = torch.stack([c.signs for c in controllers]).mean()
        for controller in controllers:  # as the processes do after each update
            controller.signs.copy_(mean)
    assert max(expected) == 1.0
    assert expected[-1] < 1.0


def test_p_goes_on_exactly_where_it_was_saved() -> None:
    logits = [torch.randn(8) + 2 for _ in range(40)]
    whole = Controller(0.1, 0.6, speed_kimg=0.5, every_kimg=0.02)
    trace = [whole.observe(values, 8 * k)["p"].item() for k, values in enumerate(logits)]
    assert len(set(trace)) > 3
    for cut in (1, 17, 30):
        first, second = (Controller(0.1, 0.6, speed_kimg=0.5, every_kimg=0.02) for _ in range(2))
        for k in range(cut):
            first.observe(logits[k], 8 * k)
        second.load_state_dict(copy.deepcopy(first.state_dict()), strict=True)
        rest = [second.observe(values, 8 * (cut + k))["p"].item() for k, values in enumerate(logits[cut:])]
        assert rest == trace[cut:]


def test_p_moves_in_bfloat16_too() -> None:
    """Steps far below what the format can tell apart from p."""
    controller = Controller(0.5, 0.6, speed_kimg=500, every_kimg=0.064).to(torch.bfloat16)
    for k in range(101):
        controller.observe(torch.ones(64), 64 * k)
    assert controller.p_at(0).item() == pytest.approx(0.5 + 64 * 100 / 500_000, abs=1e-6)


def test_without_a_target_p_stays() -> None:
    controller = Controller(0.3, None, speed_kimg=0.1, every_kimg=0.01)
    for k in range(10):
        controller.observe(torch.ones(64), 64 * k)
    assert controller.p_at(0).item() == pytest.approx(0.3)
    assert not AdaptiveDiscriminatorAugmentation(target=None).reads_signs
    assert AdaptivePseudoAugmentation().reads_signs


def test_wrong_numbers_are_named() -> None:
    for settings in ({"p": 1.5}, {"target": 2.0}, {"speed_kimg": 0.0}, {"every_kimg": -1.0}):
        ((name, value),) = settings.items()
        for kind in (AdaptiveDiscriminatorAugmentation, AdaptivePseudoAugmentation):
            with pytest.raises(ValueError, match=f"{name}={value}"):
                kind(**settings)  # type: ignore[arg-type]
    for kinds_of in (AdaptiveDiscriminatorAugmentation, DiffAugment):
        with pytest.raises(ValueError, match="colour is not one of"):
            kinds_of(kinds=["colour"])
    with pytest.raises(ValueError, match=r"shift=0\.7"):
        FlipTranslate(shift=0.7)
    with pytest.raises(ValueError, match="sigma=-1"):
        InstanceNoise(sigma=-1)
    with pytest.raises(ValueError, match=r"sigma=Linear\(1 to -1"):
        InstanceNoise(sigma=Linear(final=-1, end_kimg=2))
    with pytest.raises(ValueError, match=r"p=Linear\(1 to 2 .* is a probability"):
        AdaptiveDiscriminatorAugmentation(p=Linear(final=2, end_kimg=2), target=None)
    with pytest.raises(ValueError, match=r"says how p changes, and so does target=0\.6"):
        AdaptivePseudoAugmentation(p=Linear(end_kimg=2))
