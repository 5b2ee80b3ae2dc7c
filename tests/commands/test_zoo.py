"""`ganforge zoo` tells of every recipe what is written and measured, and docs/zoo.md is what it makes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

from ganforge.commands import zoo
from ganforge.commands.options import options

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "zoo.md"
NAMES = options()["experiment"]


def test_one_recipe_in_full(ganforge: Any) -> None:
    outcome = ganforge("zoo", "biggan_imagenet128")
    assert outcome.code == 0
    facts = dict(
        line.split(maxsplit=1) for line in outcome.out.splitlines() if not line.startswith("train it")
    )
    assert facts["arXiv"] == "1809.11096"
    assert (facts["model"], facts["loss"], facts["penalty"]) == ("biggan", "hinge", "[orthogonal]")
    assert (
        facts["parameters"] == "generator 70,433,988, discriminator 87,982,370"
    )  # 70.4 M and 88.0 M published
    assert facts["data"] == "image_folder, 3x128x128"
    assert "FID 8.7" in facts["expected"]
    assert outcome.out.endswith("ganforge train experiment=biggan_imagenet128\n")


def test_a_row_goes_into_a_file(ganforge: Any, tmp_path: Path) -> None:
    out = tmp_path / "row.md"
    assert ganforge("zoo", "lsgan_cifar10", "markdown=true", f"out={out}").code == 0
    head, _, row = out.read_text().splitlines()
    cells = dict(
        zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (head, row)), strict=True)
    )
    assert cells["recipe"] == "`lsgan_cifar10`"
    assert cells["parts"] == "`model=dcgan` `loss=least_squares`"
    assert "(https://arxiv.org/abs/1611.04076)" in cells["paper"]
    assert "FID 29.53" in cells["expected"]


def test_mistakes_are_named(ganforge: Any, tmp_path: Path) -> None:
    ganforge("zoo", "bigan_cifar10").refuses("no recipe 'bigan_cifar10'", "did you mean 'biggan_cifar10'")
    ganforge("zoo", "digits", "grid_gan").refuses("zoo takes one NAME, not 2: digits, grid_gan")
    ganforge("zoo", "digits", f"out={tmp_path}/nowhere/file").refuses("nowhere")
    ganforge("zoo", "digits", "format=md").refuses("no setting 'format'")


def test_the_page_is_what_the_command_makes(ganforge: Any, tmp_path: Path) -> None:
    """Of everything in conf/experiment, and of what bench/zoo.py has measured."""
    out = tmp_path / "zoo.md"
    assert ganforge("zoo", "markdown=true", f"out={out}").code == 0
    assert PAGE.read_text() == out.read_text(), "ganforge zoo markdown=true out=docs/zoo.md makes it anew"
    assert re.findall(r"^\| `(\w+)` \| [A-Z]", PAGE.read_text(), re.MULTILINE) == NAMES


def test_what_is_measured_is_of_recipes_and_has_pictures() -> None:
    measured = zoo.read_measured()
    assert set(measured["elsewhere"]) <= set(NAMES)
    for data in set(measured) - {"elsewhere"}:
        for recipe, entry in measured[data]["recipes"].items():
            assert recipe in NAMES
            assert entry["seeds"]
            assert all(set(zoo.FIGURES) < set(scores) for scores in entry["seeds"].values())


def test_what_has_no_part_in_a_game_is_none_of_its_parts() -> None:
    """An autoencoder's energies take no loss=... and no head=...; ganforge train refuses them."""
    began, sngan = zoo.read(["began_folder", "sngan_cifar10"])
    assert set(began.parts) == {"game", "model"}
    assert sngan.typed == ["model=sngan", "loss=hinge"]


class Plain(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(7, 5, bias=False), spectral_norm(torch.nn.Conv2d(3, 4, 3)))


class ScaledByItsLength(Plain):
    """Its first weights cannot be had without numbers."""

    def __init__(self) -> None:
        super().__init__()
        self[0].weight.data /= self[0].weight.norm().item()


@pytest.mark.parametrize("network", [Plain, ScaledByItsLength])
def test_parameters_are_counted_whether_or_not_weights_need_numbers(network: type) -> None:
    made = {"_target_": f"{__name__}.{network.__name__}"}
    loss = {"_target_": "ganforge.losses.nonsaturating.NonSaturating"}
    game = {"_target_": "ganforge.games.synthesis.Synthesis", "generator": made, "discriminator": made}
    assert zoo._sizes(json.dumps({**game, "loss": loss})) == (147, 147)
