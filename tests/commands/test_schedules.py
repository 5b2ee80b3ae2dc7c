"""Numbers that change in time, as they are typed: they train, resume to the last bit, and are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

BETAS = "[0,{_target_:ganforge.schedules.Linear,initial:0.9,final:0.99,end_kimg:0.1}]"
FIVE = (
    "schedule=cosine",
    "schedule.final=0.25",
    f"optimizer.generator.betas={BETAS}",
    f"optimizer.discriminator.betas={BETAS}",
    "penalty=[r1]",
    "+schedule@penalty.r1.gamma=linear",
    "penalty.r1.gamma.final=0.1",
    "+schedule@ema.half_life_kimg=cosine",
    "ema.half_life_kimg.initial=0",
    "ema.half_life_kimg.final=0.05",
    "ema.ramp_up=null",
    "augment=ada",
    "augment.target=null",
    "+schedule@augment.p=linear",
    "augment.p.initial=0",
    "augment.p.final=0.5",
    "callbacks.samples=null",
)


def load(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


def ends_at(kimg: float) -> list[str]:
    keys = ("schedule", "penalty.r1.gamma", "ema.half_life_kimg", "augment.p")
    return [f"{key}.end_kimg={kimg}" for key in keys]


def test_five_schedules_resume_to_the_last_bit(train: Any, ganforge: Any, tmp_path: Path) -> None:
    words = (*FIVE, *ends_at(0.2))
    assert train(*words, "total_kimg=0.256", f"hydra.run.dir={tmp_path / 'whole'}").code == 0
    assert train(*words, "total_kimg=0.128", f"hydra.run.dir={tmp_path / 'broken'}").code == 0
    outcome = ganforge("train", f"resume={tmp_path / 'broken'}", "total_kimg=0.256")
    assert outcome.code == 0, outcome.err
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "broken")
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    for group in (o["param_groups"][0] for o in whole["optimizer_states"]):
        assert group["lr"] == pytest.approx(
            5e-5 * 2.5, rel=0.3
        )  # digits' is 5e-4; at 0.224 kimg it has ended
        assert tuple(group["betas"]) == (0.0, 0.99)


def test_the_lazy_correction_is_of_the_schedule(train: Any, tmp_path: Path) -> None:
    lazy = (
        "penalty.r1.every=4",
        "fast.lazy_correction=true",
        *ends_at(1.0),
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    outcome = train(*FIVE, *lazy)
    assert outcome.code == 0, outcome.err
    discriminator, generator = (o["param_groups"][0] for o in load(tmp_path / "run")["optimizer_states"])
    assert discriminator["betas"][1] == pytest.approx(generator["betas"][1] ** 0.8)
    assert discriminator["lr"] == pytest.approx(0.8 * generator["lr"])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("penalty.r1.gamma.final=-1",), ("penalties.r1", "gamma=Linear(1 to -1", "at least 0")),
        (("augment.p.final=2",), ("augment", "p=Linear(0 to 2", "probability")),
        (("augment.target=0.6",), ("says how p changes", "target=null")),
        (("ema.half_life_kimg.final=-1",), ("ema.half_life_kimg=Cosine(0 to -1", "at least 0")),
        (("optimizer.generator.betas.1.final=2",), ("optimizer.generator", "2")),
        (("schedule.start_kimg=3",), ("start_kimg=3", "end_kimg")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_mistakes_are_named(train: Any, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    train(*FIVE, *ends_at(0.1), *words).refuses(*parts)


def test_a_half_life_that_is_no_number_is_named(train: Any) -> None:
    train("ema.half_life_kimg=long").refuses("ema.half_life_kimg=long", "number")
