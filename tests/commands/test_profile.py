"""`ganforge profile`: phases that add up, operations by closed form, a trace that loads, and no run left behind."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ganforge.commands import largest_batch
from ganforge.commands.largest_batch import Trial, search
from ganforge.training.profiling import REST, Phases, _by_phase

TINY = ("model=mlp", "metrics=none", "logger=csv", "batch_size=32", "trainer=cpu", "warmup=1", "rounds=8")


@pytest.fixture
def profiled(ganforge: Any, tmp_path: Path) -> Any:
    """`ganforge profile WORDS` of a few rounds: profile.json."""

    def profiled(*words: str) -> Any:
        outcome = ganforge("profile", *TINY, f"out={tmp_path / 'out'}", *words)
        assert outcome.code == 0, outcome.err
        return json.loads((tmp_path / "out" / "profile.json").read_text())

    return profiled


def seconds(result: Any) -> dict[str, float]:
    return {each["phase"]: each["seconds"] for each in result["phases"]}


def flops(result: Any) -> dict[str, float]:
    return {each["phase"]: each["flops"] for each in result["phases"] if each["flops"]}


def test_phases_add_up_to_the_round(profiled: Any) -> None:
    result = profiled("discriminator_steps=2", "accumulate=2")
    assert result["rounds"] == {"warmup": 1, "timed": 8}
    assert sum(seconds(result).values()) == pytest.approx(result["round_seconds"])
    assert sum(each["share"] for each in result["phases"]) == pytest.approx(1)
    assert all(value > 0 for value in seconds(result).values())
    assert set(seconds(result)) >= {
        "data: waiting for the next batch",
        *(
            f"{side}: {phase}"
            for side in ("discriminator", "generator")
            for phase in ("through the generator", "through the discriminator", "backward", "optimizer step")
        ),
        "moving average",
        "everything else",
    }
    assert result["images_per_round"] == 64
    assert result["images_per_second"] == pytest.approx(64 / result["round_seconds"])
    assert result["optimizer_steps"] == {"discriminator": 2, "generator": 1}


def test_what_lies_between_two_edges_is_the_innermost_phases() -> None:
    clock = itertools.count()
    phases = Phases(lambda: float(next(clock)))
    phases.start()  # 0
    phases.enter("outer")  # 1
    phases.enter("inner")  # 2
    phases.leave()  # 3
    phases.leave()  # 4
    assert _by_phase(phases.cut()) == {REST: 2, "outer": 2, "inner": 1}  # 5


def layers(*widths: int) -> list[int]:
    return [2 * before * after for before, after in itertools.pairwise(widths)]


def test_operations_are_those_of_the_closed_form(profiled: Any) -> None:
    """2 in · out for each layer and image: forward, for the weights' gradient, and for the input's."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    drawn = random.Random(seed)
    width, depth, latent, batch = (drawn.randint(*ends) for ends in ((3, 40), (1, 3), (2, 30), (4, 40)))
    words = [
        f"model.{side}.{k}={v}"
        for side in ("generator", "discriminator")
        for k, v in (("width", width), ("depth", depth))
    ]
    result = profiled(
        *words, f"model.generator.latent_dim={latent}", f"batch_size={batch}", "conditional=false"
    )
    g, d = layers(latent, *[width] * depth, 64), layers(64, *[width] * depth, 1)
    counted = flops(result)
    assert counted == {
        "discriminator: through the generator": batch * sum(g),
        "discriminator: through the discriminator": 2 * batch * sum(d),
        "discriminator: backward": 2 * batch * (2 * sum(d) - d[0]),
        "generator: through the generator": batch * sum(g),
        "generator: through the discriminator": batch * sum(d),
        "generator: backward": batch * (sum(d) + 2 * sum(g) - g[0]),
    }
    assert result["flops"] == sum(counted.values())
    assert result["flops_per_second"] == pytest.approx(result["flops"] / result["round_seconds"])
    assert result["matmul_flops_per_second"] > 1e8


def test_a_lazy_penalty_counts_for_its_share_of_rounds(profiled: Any) -> None:
    name = "discriminator: penalties, forward"
    each = profiled("penalty=[r1]", "conditional=false")
    lazy = profiled("penalty=[r1]", "penalty.r1.every=4", "conditional=false")
    assert flops(lazy)[name] == pytest.approx(flops(each)[name] / 4)
    assert flops(lazy)["discriminator: backward"] < flops(each)["discriminator: backward"]
    peaks = {row["phase"]: row["peak_bytes"] for row in lazy["phases"]}
    assert peaks[name] > sum(lazy["memory"]["held_bytes"].values()) / 2


def test_the_fast_settings_and_spectral_norm(profiled: Any) -> None:
    widths = ("model.generator.width=4", "model.discriminator.width=4", "batch_size=4")
    result = profiled(
        "model=sngan",
        "data.image_size=32",
        *widths,
        "fast.all=true",
        "fast.bf16=true",
        "fast.fused_pass=true",
    )
    assert result["precision"] == "bf16-mixed"
    assert {"discriminator: spectral norm", "generator: spectral norm"} <= seconds(result).keys()


def test_the_trace_loads_and_shows_the_phases(profiled: Any, tmp_path: Path) -> None:
    result = profiled()
    events = json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]
    shown = {event["name"] for event in events if event.get("cat") == "user_annotation"}
    assert set(seconds(result)) - {REST, "discriminator: gradient norm, clipping"} <= shown


def test_what_comes_now_and_then_is_priced_by_its_period(profiled: Any) -> None:
    result = profiled(
        "metrics=digits", "metrics.num_samples=64", "total_kimg=50", "callbacks.checkpoint.every_kimg=0"
    )
    periodic = {each["name"]: each for each in result["periodic"]}
    assert periodic["evaluation"]["every_kimg"] == pytest.approx(5)
    for name in ("evaluation", "samples", "log"):
        each = periodic[name]
        assert each["seconds_per_kimg"] == pytest.approx(each["seconds"] / each["every_kimg"])
    assert periodic["checkpoint"]["seconds"] > 0
    assert periodic["checkpoint"]["seconds_per_kimg"] is None
    assert result["images_per_second_with_periodic"] < result["images_per_second"]


def test_no_run_is_left(ganforge: Any, tmp_path: Path) -> None:
    outcome = ganforge("profile", *TINY, "name=mine")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    (folder,) = (tmp_path / "outputs" / "profile-mine").iterdir()
    assert sorted(os.listdir(folder)) == ["profile.json", "trace.json"]
    assert sorted(os.listdir(tmp_path)) == ["outputs"]
    assert os.listdir(tmp_path / "outputs") == ["profile-mine"]
    for part in ("img/s", "through the generator", "GFLOP/s", str(folder.relative_to(tmp_path))):
        assert part in outcome.out


def test_a_sweep_has_a_folder_a_job(ganforge: Any, tmp_path: Path) -> None:
    outcome = ganforge("profile", *TINY, "-m", "batch_size=8,16")
    assert outcome.code == 0, outcome.err
    files = sorted(path.relative_to(tmp_path).parts[-2:] for path in tmp_path.rglob("profile.json"))
    assert files == [("0", "profile.json"), ("1", "profile.json")]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("rounds=0",), ("rounds=0", "at least 1")),
        (("warmup=0",), ("warmup=0", "at least 1")),
        (("only=time",), ("only=time", "memory")),
        (("resume=somewhere",), ("resume=somewhere", "leave resume out")),
        (("roundz=3",), ("'roundz'", "did you mean 'rounds'?")),
        (("loss=hing",), ("loss=hing", "hinge")),
        (("batch_size=7", "accumulate=2"), ("batch_size=7", "accumulate=2")),
        (("trainer=ddp", "trainer.accelerator=cpu"), ("trainer.devices=2", "one process")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_bad_settings_are_refused(
    ganforge: Any, tmp_path: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    ganforge("profile", *TINY, *words).refuses(*parts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_sweep_does_not_look_for_the_largest_batch(ganforge: Any) -> None:
    outcome = ganforge("profile", *TINY, "-m", "largest_batch=true", "seed=0,1")
    assert outcome.code == 2
    assert outcome.err.count("largest_batch=true is for one configuration: leave out -m") == 1


def test_only_memory(ganforge: Any, tmp_path: Path) -> None:
    outcome = ganforge("profile", *TINY, "only=memory", f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert result["memory"]["process_peak_bytes"] > 50e6
    assert os.listdir(tmp_path / "out") == ["profile.json"]


@pytest.mark.parametrize("step", [1, 3])
def test_the_search_finds_the_largest_batch_within_a_twentieth(step: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    drawn = random.Random(seed)
    for _ in range(50):
        offset, slope, bend = drawn.uniform(1e3, 1e6), drawn.uniform(0.1, 1e3), drawn.uniform(0, 0.2)
        limit = int(offset + slope * drawn.uniform(40, 1e5))
        start = step * drawn.randint(1, 10)

        def peak(size: int) -> int:
            return int(offset + slope * size * (1 + bend * (size > 4 * start)))  # noqa: B023

        def measure(size: int) -> Trial:
            return Trial(size, peak(size) if peak(size) <= limit else None, 1.0)  # noqa: B023

        trials = search(measure, start, step, limit)
        assert all(trial.batch_size % step == 0 for trial in trials)
        best = max((t.batch_size for t in trials if t.peak is not None), default=0)
        truth = next((n for n in itertools.count(best + step, step) if peak(n) > limit), 0) - step
        assert best <= truth
        assert truth <= 1.3 * best + step
        assert len(trials) <= 16


def test_the_search_does_not_try_what_would_take_too_long() -> None:
    trials = search(lambda size: Trial(size, 10**9 + 1000 * size, 5 + size / 100), 64, 1, 20 * 10**9)
    assert max(trial.seconds for trial in trials) <= 130


@pytest.mark.slow
def test_the_largest_batch_is_found_by_real_trials(
    ganforge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(largest_batch.__file__).parents[2]))
    words = (*TINY, "model=dcgan", "batch_size=1024", "rounds=1", "conditional=false")
    alone = [sys.executable, "-m", "ganforge", "profile", *words, "only=memory", f"out={tmp_path / 'alone'}"]
    subprocess.run(alone, check=True, capture_output=True)
    memory = json.loads((tmp_path / "alone" / "profile.json").read_text())["memory"]
    limit = memory["process_peak_bytes"] + 300 * 2**20
    monkeypatch.setattr(largest_batch, "free_memory", lambda: limit)
    monkeypatch.setattr(largest_batch, "_PRECISION", 0.5)  # two or three trials, each a process of its own
    outcome = ganforge("profile", *words, "largest_batch=true", f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "out" / "profile.json").read_text())["largest_batch"]
    peaks = {trial["batch_size"]: trial["peak"] for trial in found["trials"]}
    assert len(peaks) >= 2
    assert peaks[found["batch_size"]] <= limit
    assert found["said"] in outcome.out
    assert sorted(os.listdir(tmp_path / "out")) == ["profile.json", "trace.json"]


@pytest.mark.slow
def test_where_not_even_the_batch_fits_the_profile_is_there_all_the_same(
    ganforge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largest_batch, "free_memory", lambda: 100 * 2**20)
    monkeypatch.setenv("PYTHONPATH", str(Path(largest_batch.__file__).parents[2]))
    outcome = ganforge("profile", *TINY, "batch_size=8", "largest_batch=true", f"out={tmp_path / 'out'}")
    assert outcome.code == 2
    assert "batch_size=8 does not fit" in outcome.err
    assert json.loads((tmp_path / "out" / "profile.json").read_text())["images_per_second"] > 0
