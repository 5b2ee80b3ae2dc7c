"""The module against the same rounds written by hand in plain PyTorch, to the last bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning import Callback
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganforge.datasets.samples import TensorSamples
from ganforge.draws import Draws, derive_seed
from ganforge.games.game import Batch, Terms, Turn
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.networks import dcgan, mlp
from ganforge.penalties.r1 import R1
from ganforge.penalties.weight_clipping import WeightClipping
from ganforge.schedules import Constant, Linear, Schedule
from ganforge.training.ema import EMA
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player

ROUNDS = 5
BATCH = 8
LATENT = 8  # noise of 16 numbers and their multiples is the same drawn at once and in parts
adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.999))


def dcgan_pair() -> tuple[nn.Module, nn.Module]:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 3, "width": 4}
    return dcgan.Generator(latent_dim=LATENT, **facts), dcgan.Discriminator(**facts)


def mlp_pair() -> tuple[nn.Module, nn.Module]:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 3, "width": 16}
    return mlp.Generator(latent_dim=LATENT, **facts), mlp.Discriminator(**facts)


def pictures() -> TensorSamples:
    images = torch.randint(256, (37, 1, 8, 8), dtype=torch.uint8)
    return TensorSamples("noise", images, torch.randint(3, (37,)), num_classes=3)


def module_of(
    game: Synthesis,
    *,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = adam,
    **arguments: Any,
) -> AdversarialModule:
    player = Player(optimizer, schedule or Constant(), clip_norm)
    ema = EMA(game.generator_side, half_life_kimg=0.05, ramp_up=None)
    return AdversarialModule(
        game, discriminator=player, generator=player, ema=ema, **{"batch_size": BATCH, **arguments}
    )


def by_hand(
    generator: nn.Module,
    discriminator: nn.Module,
    data: TensorSamples,
    *,
    seed: int,
    steps: int,
    flip: bool = False,
    clip_norm: float | None = None,
    schedule: Schedule | None = None,
) -> nn.Module:
    """Five rounds of the non-saturating game; changes both networks and returns the generator's average."""
    average = copy.deepcopy(generator)
    optimizers = [adam(network.parameters()) for network in (discriminator, generator)]
    orders = [
        torch.randperm(len(data), generator=torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch)))
        for epoch in range(5)
    ]
    order = torch.cat(orders)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, kimg: float) -> None:
        optimizer.param_groups[0]["lr"] = 1e-2 * (schedule(kimg) if schedule else 1.0)
        optimizer.zero_grad()
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        optimizer.step()

    for round_ in range(ROUNDS):
        draws = Draws(seed, round_)
        seen = round_ * BATCH * steps
        chosen = order[seen : seen + BATCH * steps]
        all_real = data.data[chosen] / 127.5 - 1
        if flip:
            mirrored = draws.uniform(len(all_real)) < 0.5
            all_real[mirrored] = all_real[mirrored].flip(-1)
        for real, labels in zip(
            torch.split(all_real, BATCH), torch.split(data.labels[chosen], BATCH), strict=True
        ):
            with torch.no_grad():
                fake = generator(draws.normal(BATCH, LATENT), labels)
            real_logits, fake_logits = discriminator(real, labels), discriminator(fake, labels)
            loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
            step(discriminator, optimizers[0], loss, seen / 1000)
        fake = generator(draws.normal(BATCH, LATENT), labels)
        step(generator, optimizers[1], softplus(-discriminator(fake, labels)).mean(), seen / 1000)
        beta = 0.5 ** (BATCH * steps / 50)
        for mine, theirs in zip(average.state_dict().values(), generator.state_dict().values(), strict=True):
            mine.copy_(mine.lerp(theirs, 1 - beta) if mine.is_floating_point() else theirs)
    return average


def assert_equal_to_the_bit(mine: nn.Module, theirs: nn.Module) -> None:
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("steps", "arguments"),
    [
        (1, {}),
        (3, {}),
        (1, {"flip": True, "clip_norm": 0.1}),
        (2, {"schedule": Linear(end_kimg=0.06)}),
    ],
    ids=["one discriminator step", "three", "flips and clipping", "schedule"],
)
def test_plays_the_rounds_that_a_plain_loop_plays(play: Any, steps: int, arguments: dict[str, Any]) -> None:
    generator, discriminator = dcgan_pair()
    game = Synthesis(copy.deepcopy(generator), copy.deepcopy(discriminator), NonSaturating())
    data, seed = pictures(), random.randrange(2**32)
    module = module_of(game, seed=seed, discriminator_steps=steps, **arguments)
    play(module, data, ROUNDS)

    average = by_hand(generator, discriminator, data, seed=seed, steps=steps, **arguments)
    assert_equal_to_the_bit(game.discriminator_side, discriminator)
    assert_equal_to_the_bit(game.generator_side, generator)
    assert_equal_to_the_bit(module.ema.average, average)
    assert (module.round, module.images_seen) == (ROUNDS, ROUNDS * BATCH * steps)


def test_a_callback_is_called_after_each_backward_pass_and_changes_nothing(play: Any) -> None:
    class Counting(Callback):
        passes = 0

        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            self.passes += 1

    start, data, counting = Synthesis(*mlp_pair(), NonSaturating()), pictures(), Counting()
    played = []
    for callbacks in ([], [counting]):
        module = module_of(copy.deepcopy(start), seed=3, accumulate=2, discriminator_steps=3)
        play(module, data, ROUNDS, callbacks=callbacks)
        played.append(module.game)
    assert counting.passes == ROUNDS * (3 + 1) * 2
    assert_equal_to_the_bit(*played)


def test_micro_batches_change_the_memory_and_not_the_update(play: Any) -> None:
    """Without batch norm a mean of micro-batches' gradients is the batch's."""
    data, seed = pictures(), random.randrange(2**32)
    start = Synthesis(*mlp_pair(), NonSaturating(), {"r1": R1(gamma=1.0, every=2)})
    played = []
    for accumulate in (1, 2, 4):
        module = module_of(
            copy.deepcopy(start),
            seed=seed,
            accumulate=accumulate,
            discriminator_steps=2,
            optimizer=partial(torch.optim.SGD, lr=0.1),
        )
        play(module, data, ROUNDS)
        played.append(module.state_dict())
    for cut in played[1:]:
        torch.testing.assert_close(cut, played[0], atol=1e-6, rtol=1e-5)
    moved = (
        played[0]["game.generator_side.layers.0.weight"]
        - start.generator_side.state_dict()["layers.0.weight"]
    )
    assert moved.abs().max() > 1e-4


class Recording(Synthesis):
    """Notes the discriminator's state around the generator's step."""

    def generator_terms(self, batch: Batch, turn: Turn) -> Terms:
        assert not any(p.requires_grad for p in self.discriminator_side.parameters())
        assert all(p.requires_grad for p in self.generator_side.parameters())
        self.before = [p.clone() for p in self.discriminator_side.parameters()]
        return super().generator_terms(batch, turn)


def test_the_generators_step_leaves_the_discriminator_alone(play: Any) -> None:
    game = Recording(*mlp_pair(), NonSaturating())
    play(module_of(game), pictures(), 3)
    for before, after in zip(game.before, game.discriminator_side.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.requires_grad


def test_gradients_are_bounded_before_the_step(play: Any) -> None:
    game = Synthesis(*mlp_pair(), NonSaturating())
    before = copy.deepcopy(game)
    play(module_of(game, clip_norm=0.01, optimizer=partial(torch.optim.SGD, lr=1.0)), pictures(), 1)
    for side in ("generator_side", "discriminator_side"):
        moved = [
            (a - b).detach()
            for a, b in zip(getattr(game, side).parameters(), getattr(before, side).parameters(), strict=True)
        ]
        norm = torch.cat([m.flatten() for m in moved]).norm()
        assert norm == pytest.approx(0.01, rel=1e-3)


def test_constraints_hold_after_every_round(play: Any) -> None:
    game = Synthesis(*mlp_pair(), NonSaturating(), {"clipping": WeightClipping(clip=0.01)})
    play(module_of(game), pictures(), 2)
    assert all(p.abs().max() <= 0.01 for p in game.discriminator_side.parameters())


def test_terms_observations_and_gradient_norms_are_metered(play: Any) -> None:
    module = module_of(Synthesis(*mlp_pair(), NonSaturating(), {"r1": R1(gamma=1.0, every=2)}))
    play(module, pictures(), 3)
    assert set(module.meter.means()) == {
        *(f"train/discriminator/{name}" for name in ("adversarial", "r1", "gradient_norm")),
        *(f"train/discriminator/{name}" for name in ("real_logits", "fake_logits")),
        *(f"train/discriminator/{name}" for name in ("accuracy_real", "accuracy_fake")),
        *(f"train/generator/{name}" for name in ("adversarial", "gradient_norm")),
    }


class Diverging(Synthesis):
    def generator_terms(self, batch: Batch, turn: Turn) -> Terms:
        terms = super().generator_terms(batch, turn)
        return {**terms, "oops": terms["adversarial"] * (float("nan") if turn.round == 1 else 1.0)}


def test_weights_that_are_not_finite_name_the_term(play: Any) -> None:
    module = module_of(Diverging(*mlp_pair(), NonSaturating()))
    play(module, pictures(), 1)
    module.check_finite()
    module = module_of(Diverging(*mlp_pair(), NonSaturating()))
    play(module, pictures(), 2)
    with pytest.raises(NonFiniteLossError, match=r"train/generator/oops became nan"):
        module.check_finite()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"accumulate": 3}, r"batch_size=8 cannot be cut into accumulate=3"),
        ({"accumulate": 0}, r"accumulate=0"),
        ({"discriminator_steps": 0}, r"discriminator_steps=0"),
    ],
)
def test_numbers_that_make_no_round_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module_of(Synthesis(*mlp_pair(), NonSaturating()), **wrong)
