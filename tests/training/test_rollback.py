"""Runs that a check stops or takes back: real ones, killed at any moment, resumed, and compared to the last bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning import Callback

import ganforge as package
from ganforge.datasets.samples import TensorSamples
from ganforge.evaluation.evaluator import NoEvaluation
from ganforge.evaluation.ranks import Ranks
from ganforge.games.synthesis import Synthesis
from ganforge.losses.hinge import Hinge
from ganforge.networks import dcgan, mlp
from ganforge.schedules import Constant
from ganforge.training.callbacks.checkpoint import Checkpoint
from ganforge.training.callbacks.health import Health
from ganforge.training.callbacks.log import Log
from ganforge.training.ema import EMA
from ganforge.training.fit import fit
from ganforge.training.health.check import Check, Signals
from ganforge.training.health.nonfinite import NonFinite
from ganforge.training.health.steps import NotLearning
from ganforge.training.loggers.csv_logger import CsvLogger
from ganforge.training.loggers.logger import Loggers, RunInfo
from ganforge.training.meter import NonFiniteLossError
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player
from ganforge.training.rollback import Rollbacks
from ganforge.training.rounds import Rounds
from ganforge.training.run import Run

BATCH, SEED, ROUNDS = 8, 3, 40
RATE = 1e-3


class Illness(Check):
    """From `kimg` on, in a run that did not go back `cured_after` times."""

    advice = "rest"

    def __init__(self, kimg: float, cured_after: int = 1, action: Any = "rollback") -> None:
        super().__init__(0.5, action, patience=2)
        self.kimg, self.cured_after = kimg, cured_after

    def measure(self, signals: Signals) -> float:
        return float(signals["kimg"] >= self.kimg and signals["rollbacks"] < self.cured_after)

    def say(self, value: float, signals: Signals) -> str:
        return "it is ill"


class Killed(RuntimeError):
    pass


class Kill(Callback):
    def __init__(self, at_round: int) -> None:
        self.at_round = at_round

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.round == self.at_round and not pl_module.run.goes_back:
            raise Killed


def samples(n: int = 40) -> TensorSamples:
    noise = torch.Generator().manual_seed(1)
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=noise)
    return TensorSamples("noise", images, torch.arange(n) % 2, num_classes=2)


def module_of(networks: Any = mlp, optimizer: Any = None) -> AdversarialModule:
    torch.manual_seed(0)
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 2, "width": 4}
    game = Synthesis(networks.Generator(latent_dim=8, **facts), networks.Discriminator(**facts), loss=Hinge())
    player = Player(optimizer or partial(torch.optim.Adam, lr=RATE), Constant())
    ema = EMA(game.generator_side, half_life_kimg=0.05, ramp_up=None)
    return AdversarialModule(
        game, discriminator=player, generator=player, ema=ema, batch_size=BATCH, seed=SEED
    )


def play(
    folder: Path,
    checks: dict[str, Check | None],
    *more: Callback,
    resume: bool = False,
    module: AdversarialModule | None = None,
    every: int = 3,
    **settings: Any,
) -> tuple[Run, AdversarialModule]:
    """Forty rounds with a reading each `every`, a checkpoint each fourth and a log line each other one."""
    module = module or module_of()
    kimg = BATCH / 1000
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = last if resume and last.exists() else None
    run = Run(
        folder,
        Loggers({"csv": CsvLogger()}),
        NoEvaluation(),
        ROUNDS * BATCH,
        class_counts=[20, 20],
        seed=SEED,
    )
    images_seen = 0
    if checkpoint is not None:
        state = torch.load(checkpoint, weights_only=True)
        run.restore(state["ganforge"], same_scores=True)
        images_seen = state["clock"]["images_seen"]
    rounds = Rounds(
        samples(), conditional=True, images_per_round=BATCH, seed=SEED, start=lambda: module.images_seen
    )
    callbacks = [
        Health(checks, every_kimg=every * kimg, num_images=8, **settings),
        Log(2 * kimg, progress=False),
        Checkpoint(every_kimg=4 * kimg),
        *more,
    ]
    run.loggers.start(RunInfo(folder, "test", images_seen=images_seen))
    with contextlib.suppress(Killed):
        fit(module, rounds, run, callbacks, checkpoint, accelerator="cpu", devices=1)
    return run, module


def last(folder: Path) -> dict[str, Any]:
    """What the run's checkpoint holds, but for its name, how long it took, and what is Lightning's own."""
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for key in ("seconds", "played", "run"):
        del state["ganforge"][key]
    kept = ("clock", "state_dict", "optimizer_states", "ganforge", "callbacks")
    return {name: state[name] for name in kept}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]


def rows(folder: Path) -> list[str]:
    """metrics.csv, without how fast it went and how much memory it took."""
    table = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    moody = {i for i, name in enumerate(table[0]) if name.endswith(("second", "memory_gb"))}
    return [",".join(cell for i, cell in enumerate(row) if i not in moody) for row in table]


def assert_same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert one == other, where


def test_a_run_goes_back_to_before_the_illness_with_a_lower_rate(tmp_path: Path) -> None:
    checks: dict[str, Check | None] = {"illness": Illness(kimg=18 * BATCH / 1000)}
    run, module = play(tmp_path, checks)
    assert module.round == ROUNDS
    assert run.rollbacks == Rollbacks(1, 0.5, None)
    # Ill in the reading of round 18, and in that of round 21; the one of round 15 was good, and of its last.ckpt, 12.
    (event,) = lines(tmp_path)
    assert (event["images_seen"], event["action"], event["check"]) == (21 * BATCH, "rollback", "illness")
    good = torch.load(tmp_path / "checkpoints" / "good.ckpt", weights_only=True)
    assert good["clock"]["round"] > 12, "it went on to be good"
    rates = [group["lr"] for each in last(tmp_path)["optimizer_states"] for group in each["param_groups"]]
    assert rates == [RATE / 2, RATE / 2]
    seen = [int(row.split(",")[0]) for row in rows(tmp_path)[1:]]
    assert seen == sorted(set(seen)), "what was logged after the checkpoint is gone"


@pytest.mark.parametrize(("networks", "killed_at"), [(mlp, [13, 17, 20, 22]), (dcgan, [23])])
def test_killed_at_any_round_and_resumed_equals_uninterrupted(
    networks: Any, killed_at: list[int], tmp_path: Path
) -> None:
    """Before the run goes back, right after, and later; with a second time to go back, and a new seed."""

    def checks() -> dict[str, Check | None]:
        return {"illness": Illness(kimg=18 * BATCH / 1000, cured_after=2), "nonfinite": NonFinite("rollback")}

    whole = tmp_path / "whole"
    run, _ = play(whole, checks(), module=module_of(networks), new_seed=True)
    assert run.rollbacks.count == 2
    assert [event["images_seen"] for event in lines(whole)] == [21 * BATCH] * 2
    for at_round in {*killed_at, random.randrange(1, ROUNDS)}:
        folder = tmp_path / str(at_round)
        play(folder, checks(), Kill(at_round), module=module_of(networks), new_seed=True)
        again, _ = play(folder, checks(), resume=True, module=module_of(networks), new_seed=True)
        assert again.rollbacks == run.rollbacks
        assert lines(folder) == lines(whole), at_round
        assert_same(last(folder), last(whole), f"killed in round {at_round}")
        assert rows(folder) == rows(whole)


def test_another_seed_draws_other_rounds(tmp_path: Path) -> None:
    def ill() -> dict[str, Check | None]:
        return {"illness": Illness(kimg=18 * BATCH / 1000)}

    same, new = (
        play(tmp_path / str(new_seed), ill(), learning_rate_factor=0.9, new_seed=new_seed)[1].state_dict()
        for new_seed in (False, True)
    )
    assert not any(torch.equal(same[name], new[name]) for name in same if name.endswith("weight"))


def test_after_so_many_times_the_run_stops(tmp_path: Path) -> None:
    run, module = play(tmp_path, {"illness": Illness(18 * BATCH / 1000, cured_after=9)}, at_most_rollbacks=2)
    assert run.rollbacks == Rollbacks(2, 0.25, None)
    assert [event["action"] for event in lines(tmp_path)] == ["rollback", "rollback", "stop"]
    assert run.unhealthy == "it is ill at 0.168 kimg"
    assert last(tmp_path)["clock"]["round"] == module.round == 21


def test_a_check_that_stops_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    still = {"not_learning": NotLearning(action="stop", patience=2)}
    frozen = partial(torch.optim.Adam, lr=0.0)
    run, module = play(tmp_path, still, module=module_of(optimizer=frozen))
    assert module.round == 6
    assert run.unhealthy is not None
    assert "do not change" in run.unhealthy
    assert last(tmp_path)["clock"]["round"] == 6
    assert not (tmp_path / "checkpoints" / "good.ckpt").exists(), "nothing here goes back"
    again, module = play(tmp_path, {"not_learning": NotLearning(action="stop")}, resume=True)
    assert module.round == ROUNDS
    assert again.unhealthy is None
    assert len(lines(tmp_path)) == 1, "said once"


def test_nan_takes_a_run_back_to_its_start(tmp_path: Path) -> None:
    """A rate that is far too high ends in NaN before the first checkpoint; 1e-18 of it is well."""
    module = module_of(optimizer=partial(torch.optim.SGD, lr=1e15))
    run, _ = play(tmp_path, {"nan": NonFinite("rollback")}, module=module, learning_rate_factor=1e-18)
    assert run.rollbacks.count == 1
    assert module.round == ROUNDS
    (event,) = lines(tmp_path)
    assert event["check"] == "nan"
    assert event["value"] is None
    assert "NaN or infinity: train/" in event["message"]
    assert all(torch.isfinite(tensor).all() for tensor in last(tmp_path)["state_dict"].values())


def test_nan_that_comes_again_ends_the_run(tmp_path: Path) -> None:
    module = module_of(optimizer=partial(torch.optim.SGD, lr=1e15))
    with pytest.raises(NonFiniteLossError, match="train/"):
        play(tmp_path, {"nan": NonFinite("rollback")}, module=module, at_most_rollbacks=1)
    assert [event["action"] for event in lines(tmp_path)] == ["rollback", "stop"]


def played(rank: int, size: int, folder: Path) -> None:
    """By this rank of several: its weights, and how often it went back."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", size), rank=rank, world_size=size)
    run_folder, module, ranks = folder / "run", module_of(), Ranks(rank, size)
    run = Run(run_folder, Loggers({}), NoEvaluation(), ROUNDS * BATCH, class_counts=[20, 20], seed=SEED)
    rounds = Rounds(
        samples(),
        conditional=True,
        images_per_round=BATCH,
        seed=SEED,
        start=lambda: module.images_seen,
        ranks=ranks,
    )
    kimg = BATCH / 1000
    health = Health({"illness": Illness(18 * BATCH / 1000)}, every_kimg=3 * kimg, num_images=8, new_seed=True)
    fit(module, rounds, run, [health, Checkpoint(4 * kimg)], devices=size, accelerator="cpu")
    torch.save({"state": module.state_dict(), "count": run.rollbacks.count}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_go_back_together(tmp_path: Path) -> None:
    paths = [str(Path(package.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), "2", str(tmp_path)], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one["count"] == other["count"] == 1
    assert_same(one["state"], other["state"])
    assert len(lines(tmp_path / "run")) == 1
    _, alone = play(tmp_path / "alone", {"illness": Illness(18 * BATCH / 1000)}, new_seed=True)
    torch.testing.assert_close(one["state"], alone.state_dict(), atol=1e-3, rtol=0)


if __name__ == "__main__":
    played(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
