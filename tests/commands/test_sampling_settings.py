"""How samples are made, as typed: in `ganforge sample`, `ganforge evaluate` and in training, and stamped in each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ganforge.commands.options import options

SCORED = ("metrics=digits", "num_samples=40", "batch_size=20", "out=scores.json")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path_factory.getbasetemp() / "sampling_cache"))


def made_by(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.read_text())["made_by"]
    return made


def test_pictures_say_how_they_were_sampled(ganforge: Any, trained: Path, tmp_path: Path) -> None:
    few = ("sample", f"checkpoint={trained}", "num=10")
    assert ganforge(*few, "out=plain").code == 0
    words = ("truncation=0.5", "batch_norm=standing", "balanced=true")
    assert ganforge(*few, "out=held", *words).code == 0
    plain, held = (Image.open(tmp_path / folder / "0.png") for folder in ("plain", "held"))
    assert plain.tobytes() != held.tobytes()
    assert not {"truncation", "batch_norm", "sampling"} & plain.text.keys()  # type: ignore[attr-defined]
    assert held.text["truncation"] == "0.5"  # type: ignore[attr-defined]
    assert held.text["batch_norm"] == "standing"  # type: ignore[attr-defined]
    labels = json.loads(Image.open(tmp_path / "held" / "grid.png").text["labels"])  # type: ignore[attr-defined]
    assert labels == list(range(10))


def test_a_games_further_pictures_say_how_they_were_sampled(
    train: Any, ganforge: Any, tmp_path: Path
) -> None:
    words = ("game=mad_gan", "loss=nonsaturating", "game.number=2", f"hydra.run.dir={tmp_path}/run")
    assert train(*words).code == 0
    few = ("sample", f"checkpoint={tmp_path}/run", "num=10")
    for folder, manner in {"plain": (), "held": ("truncation=0.1",), "rejected": ("sampling=drs",)}.items():
        assert ganforge(*few, f"out={folder}", *manner).code == 0
    plain, held, rejected = (
        Image.open(tmp_path / folder / "generators.png") for folder in ("plain", "held", "rejected")
    )
    assert plain.tobytes() != held.tobytes()
    assert held.text["truncation"] == "0.1"  # type: ignore[attr-defined]
    assert plain.tobytes() == rejected.tobytes()  # latents as they come, none rejected
    assert "sampling" not in rejected.text  # type: ignore[attr-defined]
    assert "sampling" in Image.open(tmp_path / "rejected" / "0.png").text  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", options()["sampling"])
def test_every_method_samples_and_is_stamped(
    ganforge: Any, trained: Path, tmp_path: Path, method: str
) -> None:
    few = {"ddls": "sampling.steps=2", "drs": "sampling.burn_in=50"}[method]
    words = (f"checkpoint={trained}", f"sampling={method}", few)
    assert ganforge("sample", *words, "num=6", "out=first").code == 0
    assert ganforge("sample", *words, "num=6", "out=again").code == 0
    for name in ("0.png", "5.png"):
        first, again = (Image.open(tmp_path / folder / name) for folder in ("first", "again"))
        assert first.tobytes() == again.tobytes()
        assert json.loads(first.text["sampling"])["method"] == method.upper()  # type: ignore[attr-defined]

    assert ganforge("evaluate", f"checkpoint={trained}", "real=digits", *SCORED).code == 0
    plain = made_by(tmp_path / "scores.json")
    assert "sampling" not in plain["generated"]
    assert ganforge("evaluate", *words, "real=digits", *SCORED).code == 0
    helped = made_by(tmp_path / "scores.json")
    key, value = few.removeprefix("sampling.").split("=")
    assert helped["generated"]["sampling"][key] == int(value)
    assert helped["protocol"] != plain["protocol"]


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("sampling=ddls", "truncation=0.5"), ("truncation=0.5", "sampling=")),
        (("sampling=ddls", "sampling.step_size=-1"), ("step_size=-1",)),
        (("sampling=ddls", "+sampling.gamma=1"), ("sampling.gamma", "step_size")),
        (("truncation=0",), ("truncation=0",)),
        (("truncation_psi=0.5",), ("truncation_psi=0.5", "no styles", "truncation=")),
        (("truncation_psi=2",), ("truncation_psi=2",)),
        (("batch_norm=none",), ("batch_norm=none", "standing")),
    ],
)
def test_settings_that_cannot_be_are_refused(
    ganforge: Any, trained: Path, command: str, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    more = ("real=digits", *SCORED) if command == "evaluate" else ()
    ganforge(command, f"checkpoint={trained}", *more, *words).refuses(*parts)


def test_settings_that_do_not_fit_the_source_are_refused(
    ganforge: Any, trained: Path, tmp_path: Path
) -> None:
    ganforge("sample", f"checkpoint={trained}", "labels=[1]", "balanced=true").refuses(
        "labels=[1]", "balanced"
    )
    ganforge("evaluate", "generated=digits", "real=digits", "metrics=digits", "sampling=drs").refuses(
        "sampling=..."
    )
    exported = tmp_path / "g.pt"
    jit: Any = torch.jit
    inputs = (torch.randn(2, 64), torch.zeros(2, dtype=torch.int64))
    jit.trace(torch.nn.Identity(), inputs[:1]).save(str(exported))
    ganforge("evaluate", f"generated={exported}", "real=digits", "sampling=drs", *SCORED).refuses(
        "checkpoints"
    )


def test_another_loss_than_that_of_a_density_ratio_is_said(train: Any, ganforge: Any) -> None:
    assert train("loss=hinge", "hydra.run.dir=run", "callbacks.samples=null").code == 0
    done = ganforge("sample", "checkpoint=run", "num=2", "out=o", "sampling=ddls", "sampling.steps=1")
    assert done.code == 0
    assert "loss=Hinge" in done.err


def test_evaluation_in_training_is_stamped_as_it_was_made(train: Any, tmp_path: Path) -> None:
    words = ("metrics=digits", "metrics.num_samples=20", "metrics.final_num_samples=20", "hydra.run.dir=run")
    tiny = ["model=stylegan2", "model.discriminator.width=4", "model.discriminator.max_width=8"]
    sizes = {"width": 4, "max_width": 8, "w_dim": 8, "depth": 1, "latent_dim": 8}
    tiny += [f"model.generator.{key}={value}" for key, value in sizes.items()]
    manner = ("truncation=0.7", "truncation_psi=0.5", "balanced=true")
    settings = [f"callbacks.evaluation.{each}" for each in manner]
    assert train(*words, *tiny, *settings, "callbacks.samples.truncation_psi=0.5").code == 0
    generated = made_by(tmp_path / "run" / "scores.json")["generated"]
    assert generated["truncation"] == 0.7
    assert generated["truncation_psi"] == 0.5
    assert generated["labels"] == "balanced"
    train("callbacks.samples.truncation_psi=0.5").refuses("callbacks.samples.truncation_psi=0.5", "no styles")
