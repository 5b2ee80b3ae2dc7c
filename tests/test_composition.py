"""Every part in conf/ composes with the others and trains: found by listing the files, so a new one arrives tested."""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import OmegaConf, open_dict

from ganforge.commands import resolvers, schema
from ganforge.commands.errors import UserError
from ganforge.commands.options import config_folder
from ganforge.commands.train import train as train_command

CONF = Path(__file__).parents[1] / "conf"
BATCH = 8
ROUNDS = 4
TINY = [
    "trainer=cpu",
    "metrics=none",
    "logger=csv",
    f"batch_size={BATCH}",
    f"total_kimg={BATCH * ROUNDS / 1000}",
    "discriminator_steps=1",
    "workers=0",
    "callbacks.log.progress=false",
    "callbacks.log.every_kimg=0.001",
    "callbacks.samples.every_kimg=0",
    "callbacks.samples.rows=2",
    "callbacks.samples.columns=2",
]
FEW = 64  # samples that a metric takes here

Train = Callable[..., Path]


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read(group: str, name: str) -> Any:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text())


def is_offline(data: str) -> bool:
    """Whether the data set needs neither files nor a download."""
    return not {"root", "path"} & read("data", data).keys()


def is_vectors(data: str) -> bool:
    return read("data", data).get("image_size") is None


def needs_weights(metrics: str) -> bool:
    """Whether nothing can be scored without the weights of a network made elsewhere."""
    return "weights_path" in read("metrics", metrics).get("extractor", {})


def few_samples(metrics: str, config: Any, prefix: str = "metrics") -> Iterator[str]:
    """Overrides that make every evaluator in a file of conf/metrics quick."""
    for index, evaluator in enumerate(config.get("evaluators", [])):
        yield from few_samples(metrics, evaluator, f"{prefix}.evaluators.{index}")
    for key in {"num_samples", "final_num_samples"} & set(config):
        yield f"{prefix}.{key}={FEW}"
    if "domain" in str(config.get("extractor")):
        inner = ".classifier" if "classifier" in config["extractor"] else ""
        yield f"+{prefix}.extractor{inner}.steps=5"


@functools.cache
def smallest_size(model: str) -> int:
    """The smallest of the usual image sizes that the model can make."""
    target = read("model", model)["generator"]["_target_"]
    for size in (8, 16, 32, 64, 128):
        with contextlib.suppress(ValueError):
            get_class(target)(latent_dim=4, image_size=size, channels=1, width=8)
            return size
    raise AssertionError(f"{model} makes no images of a usual size")


def small(model: str, data: str = "digits") -> list[str]:
    words = [f"model={model}", f"data={data}", "model.generator.width=8", "model.discriminator.width=8"]
    return words if is_vectors(data) else [*words, f"data.image_size={smallest_size(model)}"]


MODELS, LOSSES, PENALTIES, HEADS, OPTIMIZERS = (
    names(g) for g in ("model", "loss", "penalty", "head", "optimizer")
)
OFFLINE = [data for data in names("data") if is_offline(data)]
every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Train]:
    """Trains a few tiny rounds as `ganforge train` would, in this process, and checks what must hold of any run."""
    schema.register()
    resolvers.register()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("GANFORGE_CACHE", str(tmp_path / "cache"))
    runs = itertools.count()

    def train(*words: str) -> Path:
        folder = tmp_path / str(next(runs))
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = compose("train", [*TINY, *words], return_hydra_config=True)
            with open_dict(config):
                config.hydra.runtime.output_dir = str(folder)
                HydraConfig.instance().set_config(config)
                del config["hydra"]
            train_command(config)
        check(folder)
        return folder

    yield train
    GlobalHydra.instance().clear()


def check(folder: Path) -> None:
    """The clock reached its end, weights moved and are finite, and both losses were logged."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["clock"]["images_seen"] == round(state["ganforge"]["config"]["total_kimg"] * 1000)
    assert state["clock"]["round"] >= 2
    weights = state["state_dict"]
    assert all(torch.isfinite(w).all() for w in weights.values() if w.is_floating_point())
    assert len(state["optimizer_states"]) == 2
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for side in ("discriminator", "generator"):
        assert any(row[f"train/{side}/adversarial"] for row in rows)


@dataclass(frozen=True)
class Mixture:
    """Parts of one run, each from its group."""

    loss: str
    penalty: str
    head: str | None
    optimizer: str


def mixtures() -> list[Mixture]:
    """Runs in which each loss, penalty, head and optimizer occurs: with every model, all that it has to go with."""
    heads: list[str | None] = list(HEADS)
    losses = {head: stands_for(head) for head in HEADS}
    free = itertools.cycle(LOSSES)
    made = []
    for index in range(max(len(PENALTIES), len(HEADS) + len(LOSSES), len(OPTIMIZERS))):
        head = heads[index] if index < len(heads) else None
        loss = losses.get(head or "") or next(free)
        made.append(
            Mixture(loss, PENALTIES[index % len(PENALTIES)], head, OPTIMIZERS[index % len(OPTIMIZERS)])
        )
    return made


def stands_for(head: str) -> str | None:
    """The loss that the head is a form of, where it is one."""
    name: str | None = get_class(read("head", head)["_target_"]).adversarial_as
    return name.lower() if name else None


def test_the_mixtures_hold_every_part() -> None:
    made = mixtures()
    for group, all_of_it in (
        ("loss", LOSSES),
        ("penalty", PENALTIES),
        ("head", HEADS),
        ("optimizer", OPTIMIZERS),
    ):
        assert {getattr(mixture, group) for mixture in made} - {None} == set(all_of_it)


@every_model
@pytest.mark.parametrize("mixture", mixtures(), ids=str)
def test_every_model_goes_with_every_part(train: Train, model: str, mixture: Mixture) -> None:
    """Each loss, penalty, head and optimizer with each model, several in a run."""
    words = [*small(model), f"loss={mixture.loss}", f"optimizer={mixture.optimizer}"]
    words += [f"head={mixture.head}"] if mixture.head else []
    if mixture.penalty == "reconstruction" and model != "fastgan":
        with pytest.raises(UserError, match=r"needs a discriminator that can reconstruct.* model=fastgan"):
            train(*words, f"penalty=[{mixture.penalty}]")
        train(*words, "penalty=[]")
        return
    folder = train(*words, f"penalty=[{mixture.penalty}]")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert list(state["ganforge"]["config"]["penalty"]) == list(read("penalty", mixture.penalty))


def test_a_head_that_is_a_loss_names_it(train: Train) -> None:
    with pytest.raises(UserError, match=r"MultiHinge is a form of the loss Hinge .* Wasserstein: loss=hinge"):
        train(*small("mlp"), "head=multi_hinge", "loss=wasserstein")


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("game", [game for game in names("game") if game != "synthesis"])
def test_every_model_plays_every_game(train: Train, model: str, game: str) -> None:
    """Networks that grow need a discriminator that grows with them, which an autoencoder does not."""
    words = [*small(model), f"game={game}"]
    autoencodes = "autoencoder" in str(read("game", game))
    words.append("game.discriminator.width=8" if autoencodes else "loss=nonsaturating")
    if model == "progan" and autoencodes:
        with pytest.raises(UserError, match="one grows in training: both have to"):
            train(*words)
        return
    train(*words)


@every_model
def test_every_model_judges_packs(train: Train, model: str) -> None:
    train(*small(model), "game.packing=2", "conditional=false", "augment=flip_translate", "penalty=[r1]")


def test_packs_that_cannot_be_made_are_refused(train: Train) -> None:
    with pytest.raises(UserError, match=r"game\.packing=2 shows .* conditional=false"):
        train(*small("mlp"), "game.packing=2")
    unconditional = [*small("mlp"), "conditional=false"]
    with pytest.raises(UserError, match=r"batch_size=8 .*game\.packing=3: a multiple of 3 can"):
        train(*unconditional, "game.packing=3")
    with pytest.raises(UserError, match=r"needs a discriminator of 2 channels, and .* is 1"):
        train(*unconditional, "game.packing=2", "model.discriminator.channels=1")
    with pytest.raises(UserError, match=r"packing=0"):
        train(*unconditional, "game.packing=0")


@pytest.mark.parametrize("augment", names("augment"))
def test_every_augmentation_trains(train: Train, augment: str) -> None:
    folder = train(*small("dcgan"), f"augment={augment}")
    with (folder / "metrics.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    steered = "target" in read("augment", augment)
    assert (f"train/discriminator/{augment}_p" in columns) == steered
    assert (f"train/discriminator/{augment}_rt" in columns) == steered


@pytest.mark.parametrize("augment", names("augment"))
def test_augmentations_of_images_leave_points_alone(train: Train, augment: str) -> None:
    words = [*small("mlp", "gaussian_ring"), f"augment={augment}"]
    if get_class(read("augment", augment)["_target_"]).needs_images:
        with pytest.raises(
            UserError, match=r"changes images, and the data are points.*augment=instance_noise"
        ):
            train(*words)
    else:
        train(*words)


def test_a_controller_needs_logits_whose_sign_means_something(train: Train) -> None:
    with pytest.raises(UserError, match=r"says nothing with Relativistic: .* augment\.target=null"):
        train(*small("mlp"), "augment=ada", "loss=relativistic")
    train(*small("mlp"), "augment=ada", "loss=relativistic", "augment.target=null", "augment.p=0.3")


@every_model
@pytest.mark.parametrize("data", OFFLINE)
def test_every_model_learns_every_data_set(train: Train, model: str, data: str) -> None:
    """Points need a model of points; another one says so before anything is written."""
    if not is_vectors(data) or model == "mlp":
        train(*small(model, data))
        return
    refusal = "image_size=None"
    try:
        train(*small(model, data))
    except UserError as error:
        refusal = str(error)
    assert "image_size=None" in refusal


def test_all_penalties_compose(train: Train) -> None:
    """But for the one that not every model bears."""
    penalties = [penalty for penalty in PENALTIES if penalty != "reconstruction"]
    train(*small("mlp"), f"penalty=[{','.join(penalties)}]", "loss=wasserstein")


@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g in ("schedule", "trainer", "callbacks", "game", "logger") for n in names(g)],
)
def test_every_option_of_the_small_groups_trains(train: Train, group: str, name: str) -> None:
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
    option = f"[csv,{name}]" if group == "logger" and name != "csv" else name
    words = ["game.discriminator.width=8"] if "autoencoder" in str(read(group, name)) else []
    train(*small("mlp"), f"{group}={option}", *words)


@pytest.mark.parametrize("conditioning", names("conditioning"))
def test_every_conditioning_trains(train: Train, conditioning: str) -> None:
    train(*small("dcgan"), f"conditioning={conditioning}", "conditional=true")
    with pytest.raises(UserError, match=r"stylegan2\.Generator takes labels in its own way"):
        train(*small("stylegan2"), f"conditioning={conditioning}")


@pytest.mark.parametrize("metrics", [m for m in names("metrics") if not needs_weights(m)])
def test_every_metric_scores_its_data(train: Train, metrics: str) -> None:
    data = {"mixture": "gaussian_grid", "stacked": "stacked_digits"}.get(metrics, "digits")
    quick = few_samples(metrics, read("metrics", metrics))
    folder = train(*small("mlp", data), f"metrics={metrics}", *quick)
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert bool(state["ganforge"]["scores"]) == (metrics != "none")


# What makes any recipe's networks small and its schedules short; a key counts where the model has it.
SMALL_MODEL = {
    "width": 2,
    "max_width": 16,
    "w_dim": 16,
    "stable_kimg": 0.008,
    "fade_kimg": 0.008,
    "embedding_dim": 8,
}


def shrunk(recipe: Any) -> list[str]:
    networks = {f"model.{player}": arguments for player, arguments in recipe.model.items()}
    if "discriminator" in recipe.game and not OmegaConf.is_interpolation(recipe.game, "discriminator"):
        networks["game.discriminator"] = recipe.game.discriminator
    return [
        f"{place}.{key}={value}"
        for place, arguments in networks.items()
        for key, value in SMALL_MODEL.items()
        if key in arguments
    ]


def random_images_for(recipe: Any, folder: Path) -> list[str]:
    """Overrides that put random images, of the recipe's own size, in the place of a data set that is not at hand."""
    if "root" not in recipe.data:
        return []
    size, channels = recipe.data.image_size, recipe.data.channels
    file = folder / "images.npz"
    count, seed = 4 * BATCH, random.randrange(2**32)
    print(f"seed {seed}")
    randomness = np.random.default_rng(seed)
    labels = np.arange(count) % (recipe.data.num_classes or 2)
    np.savez(file, randomness.integers(256, size=(count, size, size, channels), dtype=np.uint8), labels)
    not_taken = [f"~data.{key}" for key in ("resize",) if key in written("data", recipe.name)]
    facts = [f"data.image_size={size}", f"data.channels={channels}", "data.num_classes=null"]
    return ["data=array", f"data.root={file}", *facts, *not_taken]


def written(section: str, experiment: str) -> Any:
    return read("experiment", experiment).get(section, {})


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_says_its_source_and_trains(train: Train, experiment: str, tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        recipe = compose("train", [f"experiment={experiment}"])
    assert recipe.name == experiment
    assert recipe.total_kimg > 0
    assert all(re.fullmatch(r"\d{4}\.\d{4,5}", number) for number in recipe.recipe.arxiv)
    assert {"paper", "arxiv", "expected"} <= set(written("recipe", experiment))
    opening = (
        (CONF / "experiment" / f"{experiment}.yaml").read_text().split("defaults:")[0].replace("\n# ", " ")
    )
    assert all(number in opening for number in recipe.recipe.arxiv)
    assert "expected" in opening.lower()
    steps = recipe.discriminator_steps
    batch = BATCH if (recipe.data.image_size or 0) <= 64 else BATCH // 4
    train(
        f"experiment={experiment}",
        *shrunk(recipe),
        *random_images_for(recipe, tmp_path),
        f"batch_size={batch}",
        f"discriminator_steps={steps}",
        f"total_kimg={2 * steps * batch / 1000}",
    )
