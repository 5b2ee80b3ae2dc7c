"""Settings for speed: each trains, resumes to the last bit, and changes no more than it says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

DCGAN = (
    "model=dcgan",
    "model.generator.width=4",
    "model.discriminator.width=4",
    "model.discriminator.norm=layer",
    "batch_size=16",
    "total_kimg=0.08",
    "callbacks.samples=null",
)
SNGAN = (
    "model=sngan",
    "data.image_size=32",
    "model.generator.width=4",
    "model.discriminator.width=4",
    "batch_size=4",
    "total_kimg=0.016",
    "callbacks.samples=null",
)
EACH = {
    "channels_last": ("fast.channels_last=true",),
    "bf16": ("fast.bf16=true",),
    "fused_pass": ("fast.fused_pass=true",),
    "reuse_fakes": ("fast.reuse_fakes=true", "discriminator_steps=2", "total_kimg=0.16"),
    "resident": ("fast.resident=true",),
    "lazy_correction": ("fast.lazy_correction=true", "penalty=[r1]", "penalty.r1.every=2"),
    "penalties": ("fast.all=true", "fast.bf16=true", "penalty=[gradient_penalty,orthogonal]"),
    "all": ("fast.all=true",),
}


@pytest.fixture
def weights(train: Any, tmp_path: Path) -> Any:
    """What `ganforge train WORDS` leaves behind: the checkpoint."""

    def weights(name: str, *words: str) -> dict[str, Any]:
        outcome = train(*words, f"hydra.run.dir={tmp_path / name}")
        assert outcome.code == 0, outcome.err
        return load(tmp_path / name)

    return weights


def load(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state


@pytest.mark.parametrize("setting", EACH)
def test_resumes_to_the_last_bit(weights: Any, ganforge: Any, tmp_path: Path, setting: str) -> None:
    words = (*DCGAN, *EACH[setting])
    whole = weights("whole", *words)
    total = float(words[-1].removeprefix("total_kimg=")) if words[-1].startswith("total") else 0.08
    weights("broken", *words, f"total_kimg={total * 0.4}")
    outcome = ganforge("train", f"resume={tmp_path / 'broken'}", f"total_kimg={total}")
    assert outcome.code == 0, outcome.err
    resumed = load(tmp_path / "broken")
    assert resumed["clock"] == whole["clock"]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
        assert tensor.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize("setting", ["channels_last", "fused_pass", "resident"])
def test_learns_what_the_default_learns(weights: Any, setting: str) -> None:
    close_to_default(weights, DCGAN, EACH[setting])


def test_adam_is_fused_by_default_and_learns_what_the_plain_one_learns(weights: Any) -> None:
    sides = ("generator", "discriminator")
    close_to_default(weights, DCGAN, [f"optimizer.{side}.fused=false" for side in sides])


def close_to_default(weights: Any, model: tuple[str, ...], words: Any) -> None:
    """After five rounds."""
    sgd = ("optimizer=sgd", "optimizer.generator.lr=0.02", "optimizer.discriminator.lr=0.02")
    # Adam divides by the gradient's size: what rounding leaves of a gradient of 0 moves a weight as any other does.
    model = model if any("fused=" in word for word in words) else (*model, *sgd)
    default, fast = weights("default", *model), weights("fast", *model, *words)
    assert fast["clock"]["round"] == default["clock"]["round"] == 5
    assert fast["state_dict"].keys() == default["state_dict"].keys()
    for name, tensor in default["state_dict"].items():
        torch.testing.assert_close(fast["state_dict"][name], tensor, atol=1e-4, rtol=1e-4, msg=name)


def test_reused_fakes_are_another_algorithm_of_the_same_kind(weights: Any) -> None:
    default, reused = weights("default", *DCGAN), weights("reused", *DCGAN, "fast.reuse_fakes=true")
    name = "game.generator_side.linear.weight"
    assert not torch.equal(reused["state_dict"][name], default["state_dict"][name])
    # One pass a round through the generator's batch norm instead of two.
    counter = "game.generator_side.blocks.0.norm.norm.num_batches_tracked"
    assert (default["state_dict"][counter], reused["state_dict"][counter]) == (10, 5)


def test_spectral_norm_and_everything(weights: Any) -> None:
    weights("all", *SNGAN, "fast.all=true", "fast.reuse_fakes=true", "penalty=[r1]")


@pytest.mark.slow
def test_compiled_networks_learn_what_the_others_learn(weights: Any, ganforge: Any, tmp_path: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    words = ("fast.compile=true", "fast.fused_pass=true", "penalty=[r1]")
    sgd = ("optimizer=sgd", "optimizer.generator.lr=0.02", "optimizer.discriminator.lr=0.02")
    plain = weights("plain", *DCGAN, *sgd, *words[1:])
    compiled = weights("compiled", *DCGAN, *sgd, *words)
    assert compiled["state_dict"].keys() == plain["state_dict"].keys()
    for name, tensor in plain["state_dict"].items():
        torch.testing.assert_close(compiled["state_dict"][name], tensor, atol=1e-5, rtol=1e-5, msg=name)
    outcome = ganforge("train", f"resume={tmp_path / 'compiled'}", "total_kimg=0.112")
    assert outcome.code == 0, outcome.err
    whole = weights("whole", *DCGAN, *sgd, *words, "total_kimg=0.112")
    for name, tensor in whole["state_dict"].items():
        torch.testing.assert_close(load(tmp_path / "compiled")["state_dict"][name], tensor, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "game", ["began", "bigan", "cogan", "mad_gan"]
)  # each has its own way of being compiled
def test_other_games_learn_the_same_compiled(
    game: str, weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated as for a compiler, with nothing built: which code follows makes no difference here."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    traced: list[Any] = []

    def compile(network: Any) -> Any:
        traced.append(network)
        return torch_compile(network, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile)
    words = [*DCGAN, f"game={game}", "optimizer=sgd", "penalty=[r1]"]
    words += [f"optimizer.{side}.lr=0.02" for side in ("generator", "discriminator")]
    words += ["game.discriminator.width=8"] if game == "began" else []
    plain = weights("plain", *words)
    assert not traced
    compiled = weights("compiled", *words, "fast.compile=true")
    assert len(traced) >= 2
    for name, tensor in plain["state_dict"].items():
        torch.testing.assert_close(compiled["state_dict"][name], tensor, atol=1e-5, rtol=1e-5, msg=name)


def test_the_lazy_correction_is_the_papers(weights: Any) -> None:
    """c = 4/5: lr · c and betas to the power of c, for the discriminator alone."""
    adam = ("optimizer.discriminator.lr=1e-3", "optimizer.discriminator.betas=[0.5,0.9]")
    lazy = ("penalty=[r1]", "penalty.r1.every=4", "fast.lazy_correction=true")
    state = weights("lazy", *DCGAN, *adam, *lazy)
    discriminator, generator = (o["param_groups"][0] for o in state["optimizer_states"])
    assert discriminator["lr"] == pytest.approx(0.8e-3)
    assert tuple(discriminator["betas"]) == pytest.approx((0.5**0.8, 0.9**0.8))
    assert tuple(generator["betas"]) == (0.5, 0.999)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("fast.fused_pass=true", "model.discriminator.norm=batch"), ("fast.fused_pass=true", "batch norm")),
        (("fast.reuse_fakes=true", "accumulate=2"), ("fast.reuse_fakes=true", "accumulate=2")),
        (("fast.bf16=true", "trainer.precision=64-true"), ("fast.bf16=true", "trainer.precision=64-true")),
        (("fast.lazy_correction=true",), ("fast.lazy_correction=true", "`every` above 1")),
        (("fast.tf32=true",), ("fast.tf32=true", "trainer.accelerator")),
        (("fast.reuse_fakes=true", "game=logan"), ("fast.reuse_fakes=true", "game.latent_optimisation")),
        (("fast.compile=true", "game=logan"), ("fast.compile=true", "game.latent_optimisation")),
        (("fast.bf16=perhaps",), ("fast.bf16=perhaps",)),
        (("fast.chanels_last=true",), ("did you mean 'fast.channels_last'?",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_excludes_one_another_is_named(
    train: Any, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    train(*DCGAN, *words).refuses(*parts)


def test_compiling_spectral_norm_needs_one_pass_and_no_other(train: Any) -> None:
    train(*SNGAN, "fast.compile=true").refuses("fast.compile=true", "fast.fused_pass=true")
    words = ("fast.compile=true", "fast.fused_pass=true", "penalty=[r1]")
    train(*SNGAN, *words).refuses("fast.compile=true", "penalty=[r1]")


def test_all_leaves_out_what_does_not_fit(weights: Any) -> None:
    """Batch norm excludes the fused pass, and an explicit no is heard."""
    weights("batch", *DCGAN, "model.discriminator.norm=batch", "fast.all=true", "fast.bf16=false")


def test_settings_for_speed_may_change_when_a_run_goes_on(
    weights: Any, ganforge: Any, tmp_path: Path
) -> None:
    weights("run", *DCGAN)
    words = ("fast.all=true", "fast.bf16=true", "fast.reuse_fakes=true")
    outcome = ganforge("train", f"resume={tmp_path / 'run'}", "total_kimg=0.128", *words)
    assert outcome.code == 0, outcome.err
    assert load(tmp_path / "run")["clock"] == {"images_seen": 128, "round": 8}


def test_help_says_how_to_be_fast(ganforge: Any) -> None:
    assert "fast.all=true" in ganforge("train", "--help").out


def test_one_pass_does_not_compare_real_with_fake(train: Any, weights: Any) -> None:
    words = (*DCGAN, "head=minibatch_discrimination", "loss=hinge")
    outcome = train(*words, "fast.fused_pass=true")
    assert outcome.code == 2
    assert "fast.fused_pass=true does not go with MinibatchDiscriminationHead" in outcome.err
    weights("all", *words, "fast.all=true")


def test_one_pass_keeps_to_the_groups_of_two(train: Any, weights: Any) -> None:
    """A group of the minibatch's deviation that has real and fake images in it would tell another figure."""
    model = (
        "model=stylegan2",
        "model.generator.width=4",
        "model.discriminator.width=4",
        "callbacks.samples=null",
    )
    uneven = (*model, "batch_size=6", "total_kimg=0.012")
    train(*uneven, "fast.fused_pass=true").refuses("fast.fused_pass=true", "MinibatchDeviation")
    weights("uneven", *uneven, "fast.all=true")
