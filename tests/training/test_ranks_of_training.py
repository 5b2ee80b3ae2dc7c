"""Several processes play the game that one plays: real gloo processes on this machine."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import ganforge as package
from ganforge.augmentations.ada import AdaptiveDiscriminatorAugmentation
from ganforge.augmentations.apa import AdaptivePseudoAugmentation
from ganforge.datasets.samples import TensorSamples
from ganforge.evaluation.evaluator import NoEvaluation
from ganforge.evaluation.ranks import Ranks
from ganforge.games.began import BEGAN
from ganforge.games.bigan import BiGAN
from ganforge.games.cogan import CoGAN
from ganforge.games.game import Game
from ganforge.games.infogan import InfoGAN
from ganforge.games.latent_optimisation import LatentOptimisation
from ganforge.games.mad_gan import MADGAN
from ganforge.games.ssgan import SSGAN
from ganforge.games.synthesis import Synthesis
from ganforge.losses.nonsaturating import NonSaturating
from ganforge.losses.wasserstein import Wasserstein
from ganforge.networks import autoencoder, dcgan, mlp, sngan
from ganforge.penalties.gradient_penalty import GradientPenalty
from ganforge.penalties.lecam import LeCam
from ganforge.penalties.path_length import PathLength
from ganforge.penalties.r1 import R1
from ganforge.schedules import Constant, Linear
from ganforge.training.ema import EMA
from ganforge.training.fit import fit
from ganforge.training.gradients import average_gradients_
from ganforge.training.loggers.logger import Loggers
from ganforge.training.module import AdversarialModule
from ganforge.training.player import Player
from ganforge.training.rounds import RoundIndices, Rounds
from ganforge.training.run import Run

ROUNDS = 10
BATCH = 24
SIZES = (1, 2, 3)

pytestmark = pytest.mark.slow


def plain_pair(image_size: int = 8) -> tuple[nn.Module, nn.Module]:
    facts: dict[str, Any] = {"image_size": image_size, "channels": 1, "num_classes": 3, "width": 16}
    return mlp.Generator(latent_dim=8, **facts), mlp.Discriminator(**facts)


def spectral_pair() -> tuple[nn.Module, nn.Module]:
    return plain_pair(32)[0], sngan.Discriminator(32, channels=1, num_classes=3, width=4)


def batch_norm_pair() -> tuple[nn.Module, nn.Module]:
    facts: dict[str, Any] = {"image_size": 8, "channels": 1, "num_classes": 3, "width": 4}
    return dcgan.Generator(latent_dim=8, **facts), dcgan.Discriminator(**facts)


def began() -> Game:
    """With a k that moves in earnest within ten rounds."""
    judge = autoencoder.Discriminator(8, 1, width=4, code_dim=4)
    return BEGAN(plain_pair()[0], judge, gamma=1.0, k_rate=0.1)


def infogan() -> Game:
    return InfoGAN(*plain_pair(), NonSaturating(), categories=[3], continuous=1)


def mad_gan() -> Game:
    generator, judge = plain_pair()
    return MADGAN(lambda: copy.deepcopy(generator), judge, NonSaturating(), number=5)


def ssgan() -> Game:
    return SSGAN(*plain_pair(), NonSaturating())


def cogan() -> Game:
    generator, judge = lambda: plain_pair()[0], lambda: plain_pair()[1]
    return CoGAN(generator, judge, NonSaturating(), second="negatives", num_classes=3)


def bigan() -> Game:
    return BiGAN(plain_pair()[0], lambda: plain_pair()[1], NonSaturating(), width=8, num_classes=3)


def logan() -> Game:
    return Synthesis(*plain_pair(), NonSaturating(), latent_optimisation=LatentOptimisation())


# As p moves in earnest within ten rounds.
ADA = partial(AdaptiveDiscriminatorAugmentation, p=0.5, target=0.1, speed_kimg=1.0, every_kimg=0.05)
APA = partial(AdaptivePseudoAugmentation, p=0.5, target=0.1, speed_kimg=1.0, every_kimg=0.05)
FALLING = Linear(end_kimg=0.3)
ADA_FALLING = partial(AdaptiveDiscriminatorAugmentation, p=FALLING, target=None)

# name: networks or a whole game, loss, penalties, bound of the gradients, arguments of the module and for speed
CASES: dict[str, tuple[Callable[[], Any], Any, dict[str, Any], float | None, dict[str, Any]]] = {
    "plain": (plain_pair, NonSaturating(), {}, None, {"flip": True}),
    "r1": (plain_pair, NonSaturating(), {"r1": R1(gamma=1.0, every=2)}, None, {}),
    "wgan_gp": (plain_pair, Wasserstein(), {"gp": GradientPenalty()}, None, {"discriminator_steps": 5}),
    "accumulation": (plain_pair, NonSaturating(), {}, None, {"accumulate": 4, "discriminator_steps": 2}),
    "clipping": (plain_pair, NonSaturating(), {}, 0.1, {}),
    "spectral_norm": (spectral_pair, NonSaturating(), {}, None, {}),
    "spectral_norm_in_one_pass": (spectral_pair, NonSaturating(), {}, None, {"fused_pass": True}),
    "ada": (plain_pair, NonSaturating(), {}, None, {"augmentation": ADA, "discriminator_steps": 2}),
    "apa": (plain_pair, NonSaturating(), {}, None, {"augmentation": APA, "accumulate": 2}),
    "lecam": (plain_pair, NonSaturating(), {"lecam": LeCam(every=2)}, None, {"accumulate": 2}),
    "path_length": (plain_pair, NonSaturating(), {"length": PathLength(every=2)}, None, {"accumulate": 2}),
    "began": (began, None, {}, None, {"accumulate": 2, "discriminator_steps": 2}),
    "infogan": (infogan, None, {}, None, {}),
    "mad_gan": (mad_gan, None, {}, None, {}),
    "ssgan": (ssgan, None, {}, None, {}),
    "cogan": (cogan, None, {}, None, {}),
    "bigan": (bigan, None, {}, None, {}),
    "logan": (logan, None, {}, None, {"accumulate": 2}),
    "schedules": (plain_pair, NonSaturating(), {"r1": R1(FALLING)}, None, {"augmentation": ADA_FALLING}),
    "batch_norm": (batch_norm_pair, NonSaturating(), {}, None, {}),
}


def played(case: str, ranks: Ranks, folder: str, precision: str) -> dict[str, Any]:
    """Ten rounds of a case by this rank: its weights and buffers, and what was metered."""
    pair, loss, penalties, clip_norm, arguments = CASES[case]
    torch.manual_seed(ranks.rank)  # the ranks have to begin with the first one's weights
    made = pair()
    arguments = dict(arguments)
    augmentation = arguments.pop("augmentation", lambda: None)()
    game = (
        made
        if isinstance(made, Game)
        else Synthesis(*made, loss, copy.deepcopy(penalties), augmentation=augmentation)
    )
    game.fused_pass = arguments.pop("fused_pass", False)
    # In float64 rounding is far below the tolerance, and nothing but rounding may differ. Adam makes whole steps of a
    # gradient that is 0 but for rounding; in float32 it is left out.
    optimizer = (
        partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999))
        if precision == "64-true"
        else partial(torch.optim.SGD, lr=1e-3)
    )
    player = Player(optimizer, Constant(), clip_norm)
    ema = EMA(game.generator_side, half_life_kimg=0.05, ramp_up=None)
    module = AdversarialModule(
        game, discriminator=player, generator=player, ema=ema, batch_size=BATCH, seed=5, **arguments
    )
    noise = torch.Generator().manual_seed(0)
    side = 32 if pair is spectral_pair else 8
    images = torch.randint(256, (37, 1, side, side), dtype=torch.uint8, generator=noise)
    data = TensorSamples("noise", images, torch.randint(3, (37,), generator=noise), num_classes=3)
    run = Run(Path(folder), Loggers({}), NoEvaluation(), total_images=ROUNDS * module.images_per_round)
    rounds = Rounds(
        data,
        conditional=True,
        images_per_round=module.images_per_round,
        seed=5,
        start=lambda: module.images_seen,
        micro_batches=module.discriminator_steps * module.accumulate,
        ranks=ranks,
    )
    fit(module, rounds, run, [], devices=ranks.size, accelerator="cpu", precision=precision)
    assert module.images_seen == run.total_images
    return {"state": module.state_dict(), "means": module.meter.means()}


def averaged(ranks: Ranks) -> list[Any]:
    """Gradients that all ranks, some, and none have."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), float(ranks.rank))
    if ranks.rank == 0:
        parameters[1].grad = torch.full((2,), float(ranks.size))
    statistics = torch.full((3,), float(ranks.rank))
    average_gradients_(parameters, [statistics])
    return [*(p.grad for p in parameters), statistics]


def play_all(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        store = dist.FileStore(f"{folder}/store{size}", size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    ranks = Ranks(rank, size)
    result: dict[str, Any] = {"averaged": averaged(ranks)}
    for precision in ("64-true", "32-true"):
        result[precision] = {case: played(case, ranks, folder, precision) for case in CASES}
    torch.save(result, f"{folder}/{size}_{rank}.pt")
    if size > 1:
        dist.destroy_process_group()


def environment() -> dict[str, str]:
    paths = [str(Path(package.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


one_worker = pytest.mark.xdist_group("results of each number of ranks")  # they take a minute


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Any]:
    """What each rank of each number of ranks ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    results = {}
    for size in SIZES:
        command = [sys.executable, __file__]
        processes = [
            subprocess.Popen([*command, str(rank), str(size), str(folder)], env=environment())
            for rank in range(size)
        ]
        assert [process.wait(timeout=300) for process in processes] == [0] * size
        for rank in range(size):
            results[size, rank] = torch.load(folder / f"{size}_{rank}.pt", weights_only=True)
    return results


@one_worker
@pytest.mark.parametrize("precision", ["64-true", "32-true"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "batch_norm"])
def test_the_weights_do_not_depend_on_the_number_of_ranks(
    case: str, precision: str, results: dict[tuple[int, int], Any]
) -> None:
    alone = results[1, 0][precision][case]
    tolerance = 1e-9 if precision == "64-true" else 1e-6
    for size in SIZES[1:]:
        together = results[size, 0][precision][case]
        torch.testing.assert_close(together["state"], alone["state"], atol=tolerance, rtol=0)
        assert together["means"] == pytest.approx(alone["means"], rel=1e-5, abs=1e-5), (
            "figures are of the whole batch"
        )


@one_worker
@pytest.mark.parametrize("case", CASES)
def test_all_ranks_hold_the_same_to_the_last_bit(case: str, results: dict[tuple[int, int], Any]) -> None:
    """Batch norm's statistics and spectral norm's vectors too: any rank's checkpoint would be the run's."""
    for size in SIZES[1:]:
        for rank in range(1, size):
            one, other = (results[size, r]["32-true"][case]["state"] for r in (0, rank))
            assert all(torch.equal(one[name], other[name]) for name in one)


@one_worker
@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_all_of_some_and_of_no_ranks(size: int, results: dict[tuple[int, int], Any]) -> None:
    for rank in range(size):
        of_all, of_some, of_none, statistics = results[size, rank]["averaged"]
        assert of_all.tolist() == [(size - 1) / 2] * 2
        assert of_some.tolist() == [1.0, 1.0]
        assert of_none is None
        assert statistics.tolist() == [(size - 1) / 2] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_each_image_is_shown_once_an_epoch_over_all_ranks(size: int) -> None:
    def shown(rank: int, of: int) -> torch.Tensor:
        stream = iter(RoundIndices(36, 12, 7, start=lambda: 0, micro_batches=2, ranks=Ranks(rank, of)))
        return torch.stack([next(stream) for _ in range(3)]).view(3, 2, -1)

    together = torch.cat([shown(rank, size) for rank in range(size)], dim=2)
    assert torch.equal(together, shown(0, 1)), "side by side, the ranks' micro-batches are the whole one's"
    assert torch.equal(together.flatten().sort().values, torch.arange(36))


TINY = ["model=mlp", "logger=csv", "batch_size=24", "trainer=ddp", "trainer.accelerator=cpu"]
ENDLESS = ["total_kimg=1000000", "metrics=none", "callbacks.checkpoint.every_kimg=0.24"]
ENDLESS += [
    "+callbacks.log.line_every_seconds=0.1",
    "callbacks.log.every_kimg=0.24",
    "callbacks.samples=null",
]


def ganforge(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ganforge", *words]
    settings = {**environment(), "GANFORGE_CACHE": str(cwd / "cache")}
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=300)


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Starts an endless run of two processes in `run`; returns it, once it plays, and the others' process ids."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> tuple[subprocess.Popen[str], list[int]]:
        command = [sys.executable, "-m", "ganforge", "train", *TINY, *ENDLESS, *words]
        command.append(f"hydra.run.dir={tmp_path / 'run'}")
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stderr is not None
        seen = 0
        for line in process.stderr:
            seen += "img/s" in line
            if seen == 3:
                break
        assert seen == 3
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return process, [int(child) for child in children]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


def test_the_scores_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    frozen = ["optimizer.generator.lr=0", "optimizer.discriminator.lr=0", "total_kimg=0.048"]
    scores = []
    for size in (1, 2):
        done = ganforge(
            "train", *TINY, *frozen, f"trainer.devices={size}", f"hydra.run.dir=run{size}", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        scores.append(json.loads((tmp_path / f"run{size}" / "scores.json").read_text())["scores"])
    assert "fid" in scores[0]
    assert scores[0] == scores[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_rank_that_dies_ends_the_run(playing: Any, tmp_path: Path) -> None:
    process, (other,) = playing()
    os.kill(other, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    message = err.splitlines()[-1]
    assert "process 1 of 2 was killed by SIGKILL" in message
    assert f"ganforge train resume={tmp_path / 'run'}" in message
    assert "Traceback" not in err
    assert message.endswith((tmp_path / "run" / "failure.txt").read_text().strip())
    assert state(tmp_path / "run")["clock"]["images_seen"] >= 240


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_rank_that_gives_no_sign_ends_the_run(playing: Any, tmp_path: Path) -> None:
    process, (other,) = playing("trainer.timeout_seconds=3")
    os.kill(other, signal.SIGSTOP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "process 1 of 2 kept the others waiting for trainer.timeout_seconds=3" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not Path(f"/proc/{other}").exists()
    assert state(tmp_path / "run")["state_dict"]


def test_a_rank_that_others_wait_for_in_vain_is_named(playing: Any, tmp_path: Path) -> None:
    """It lives, and its signs go on, but it does not come to where the others are."""
    text = """
        import os, time
        from lightning import Callback

        class Stuck(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                if trainer.global_rank == 1 and module.images_seen >= 960:
                    time.sleep(600)
    """
    (tmp_path / "stuck.py").write_text(textwrap.dedent(text))
    process, (_, other) = playing(
        "trainer.devices=3", "trainer.timeout_seconds=4", "+callbacks.stuck._target_=stuck.Stuck"
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "process 1 of 3 kept the others waiting for trainer.timeout_seconds=4" in err.splitlines()[-1]
    assert not Path(f"/proc/{other}").exists()
    assert state(tmp_path / "run")["clock"]["images_seen"] == 960


def ended_by_sigterm(process: subprocess.Popen[str], folder: Path) -> int:
    """Images seen by a run of two processes, one of which got SIGTERM."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    found = re.search(r"stopped by SIGTERM at ([\d.]+) kimg", err.splitlines()[-1])
    assert found, err
    seen: int = state(folder)["clock"]["images_seen"]
    assert seen == pytest.approx(1000 * float(found.group(1)), rel=1e-5)
    return seen


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_signal_to_any_rank_stops_all_after_the_same_round(playing: Any, tmp_path: Path) -> None:
    """To the second one here, to the first one in the next test."""
    process, (other,) = playing()
    os.kill(other, signal.SIGTERM)
    folder = tmp_path / "run"
    seen = ended_by_sigterm(process, folder)
    total = f"total_kimg={(seen + 48) / 1000}"
    done = ganforge("train", f"resume={folder}", total, "trainer.devices=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert state(folder)["clock"]["images_seen"] == seen + 48, "another number of ranks goes on"


def test_stopped_and_resumed_equals_uninterrupted(playing: Any, tmp_path: Path) -> None:
    words = ["model=dcgan", "model.generator.width=4", "model.discriminator.width=4"]
    process, _ = playing(*words)
    process.terminate()
    folder = tmp_path / "run"
    total = f"total_kimg={(ended_by_sigterm(process, folder) + 240) / 1000}"
    for done in (
        ganforge("train", f"resume={folder}", total, cwd=tmp_path),
        ganforge("train", *TINY, *ENDLESS, *words, total, "hydra.run.dir=whole", cwd=tmp_path),
    ):
        assert done.returncode == 0, done.stderr
    resumed, whole = state(folder), state(tmp_path / "whole")
    assert resumed["clock"] == whole["clock"]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_the_others_end_with_the_first(playing: Any) -> None:
    process, (other,) = playing()
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_settings_for_speed_on_two_ranks(tmp_path: Path) -> None:
    words = ["model=dcgan", "model.generator.width=4", "model.discriminator.width=4", "metrics=none"]
    fast = [f"fast.{name}=true" for name in ("channels_last", "bf16", "resident", "reuse_fakes")]
    done = ganforge("train", *TINY, *words, *fast, "total_kimg=0.12", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "batch norm: each process takes its own share of the batch for the whole" in done.stderr
    trained = state(tmp_path / "run")
    assert trained["clock"] == {"images_seen": 120, "round": 5}
    for name, tensor in trained["state_dict"].items():
        assert tensor.isfinite().all(), name
        assert tensor.dtype in (torch.float32, torch.int64)


def test_each_job_of_a_multirun_has_its_own_ranks(tmp_path: Path) -> None:
    words = [*TINY, "metrics=none", "total_kimg=0.048", "hydra.sweep.dir=sweep"]
    done = ganforge("train", "-m", *words, "seed=3,4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 processes share each batch of 24") == 2
    weights = []
    for job, seed in (("0", 3), ("1", 4)):
        folder = tmp_path / "sweep" / job
        assert {path.name for path in folder.iterdir()} >= {"config.yaml", "metrics.csv", "samples.webp"}
        assert [start["seed"] for start in json.loads((folder / "run.json").read_text())["starts"]] == [seed]
        assert not (folder / "failure.txt").exists()
        weights.append(state(folder)["state_dict"]["game.generator_side.layers.0.weight"])
    assert not torch.equal(*weights)
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]


def test_torchrun_starts_the_ranks_as_well_and_has_nothing_to_do_where_the_run_has_ended(
    tmp_path: Path,
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*TINY, "metrics=none", "total_kimg=0.048", "hydra.run.dir=run"]
    for asked in (words, ["resume=run"]):
        done = subprocess.run(
            [*torchrun, "-m", "ganforge", "train", *asked],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert ("run has ended" in done.stderr) == (asked == ["resume=run"])
        assert state(tmp_path / "run")["clock"]["images_seen"] == 48


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_torchrun_starts_a_run_again_that_goes_on(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "ganforge", "train", *TINY, *ENDLESS, "hydra.run.dir=run"]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        agent = subprocess.Popen(
            [*torchrun, "--max-restarts", "1", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=file,
            stderr=file,
        )

    def wait_for(what: Callable[[], bool]) -> None:
        until = time.monotonic() + 200
        while not what():
            assert agent.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    try:
        wait_for((tmp_path / "run" / "checkpoints" / "last.ckpt").exists)
        workers = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        (victim,) = [pid for pid in workers if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
        os.kill(int(victim), signal.SIGKILL)
        wait_for(lambda: "going on in" in log.read_text())
    finally:
        agent.terminate()
        agent.wait(60)


def test_torchrun_on_two_machines(tmp_path: Path) -> None:
    """Two agents that meet as those of two machines do, each with two processes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "run"]
    agent += ["--local-addr", "127.0.0.1"]
    words = [*TINY, "trainer.num_nodes=2", "metrics=none", "total_kimg=0.048", "hydra.run.dir=run"]
    agents = [
        subprocess.Popen(
            [*agent, "-m", "ganforge", "train", *words],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in agents]
    assert [process.returncode for process in agents] == [0, 0], said
    assert "4 processes share each batch of 24" in "".join(said)
    assert state(tmp_path / "run")["clock"]["images_seen"] == 48


if __name__ == "__main__":
    play_all(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
