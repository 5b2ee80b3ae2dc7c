"""`ganforge zoo`: every recipe of conf/experiment, with its paper, its parts, and what is expected and measured."""

from __future__ import annotations

import functools
import io
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize
from torch.overrides import TorchFunctionMode

from ganforge.commands import building
from ganforge.commands.configuration import composing, plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.options import config_folder, options
from ganforge.games.game import Game
from ganforge.progress import show_progress

log = logging.getLogger("ganforge")

PARTS = ("game", "model", "conditioning", "head", "loss", "penalty", "augment")
DATA = {"digits": "digits", "mnist": "MNIST"}  # what bench/zoo.py trains on
NOT_LEARNED = 20  # an FID above it is said to be too high to speak of learning
FIGURES = ("fid", "kid", "precision", "recall", "coverage")


@dataclass(frozen=True)
class Recipe:
    """What the zoo says of one experiment.

    Attributes:
        parts: options by group; without those that are left to the defaults or have no part in the game.
        parameters: of the generator's side and the discriminator's.
        data: the set with its shape.
        length: how long it trains, in words.
    """

    name: str
    paper: str
    arxiv: tuple[str, ...]
    expected: str
    parts: Mapping[str, str]
    parameters: tuple[int, int]
    data: str
    length: str

    @property
    def typed(self) -> list[str]:
        """The parts as they are typed; the usual game goes without saying."""
        return [f"{group}={option}" for group, option in self.parts.items() if option != "synthesis"]


def zoo(config: DictConfig) -> None:
    """Prints what the settings ask for, or writes it to `out`.

    Raises:
        UserError: no such recipe, or a file that cannot be written.
    """
    settings = plain(config)
    names = options()["experiment"]
    asked = settings["name"]
    if asked is not None and asked not in names:
        raise UserError(
            f"there is no recipe {asked!r}: it is one of {', '.join(names)}{did_you_mean(asked, names)}"
        )
    recipes = list(
        show_progress(read([asked] if asked else names), 1 if asked else len(names), "reading recipes")
    )
    measured = read_measured()
    if settings["markdown"]:
        text = "\n".join(table(recipes, measured)) + "\n" if asked else page(recipes, measured)
    else:
        text = in_full(recipes[0], measured) if asked else listing(recipes, measured)
    if settings["out"] is None:
        print(text, end="")
        return
    out = Path(settings["out"]).expanduser()
    with user_errors():
        out.write_text(text)
    log.info("%d recipes: %s", len(recipes), out)


def read(names: Sequence[str]) -> Iterator[Recipe]:
    """The recipes of conf/experiment/NAME.yaml, composed; their metrics and logs are nothing that is told of here."""
    with composing() as compose:
        for name in names:
            words = [f"experiment={name}", "metrics=none", "logger=csv"]
            yield _recipe(name, compose("train", words, return_hydra_config=True))


def _recipe(name: str, config: DictConfig) -> Recipe:
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    settings = plain(config)
    game: type[Game] = building.target_of(config.game, "game")
    parts = {group: choices.get(group) for group in PARTS if group not in game.has_no_part_for}
    if settings["penalty"]:
        parts["penalty"] = f"[{','.join(settings['penalty'])}]"
    data = settings["data"]
    source = settings["recipe"]
    return Recipe(
        name=name,
        paper=source["paper"] or "",
        arxiv=tuple(source["arxiv"]),
        expected=source["expected"] or "",
        parts={group: str(option) for group, option in parts.items() if option and option != "[]"},
        parameters=_parameters(config),
        data=f"{choices['data']}, {data['channels']}x{data['image_size']}x{data['image_size']}"
        if data["image_size"]
        else choices["data"],
        length=f"{settings['total_kimg']:,g} kimg, batches of {settings['batch_size']:,}, "
        f"discriminator_steps={settings['discriminator_steps']}",
    )


class _NoNumbers(TorchFunctionMode):
    """Initial values, and spectral norm's first power iterations, take most of the time, and count no parameters."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.mv, torch.vdot):
            return args[0].select(-1, 0)
        if func is normalize:
            return args[0] if kwargs.get("out") is None else kwargs["out"]
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_FILLS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_)


def _parameters(config: DictConfig) -> tuple[int, int]:
    """Of the generator's and the discriminator's side."""
    described = OmegaConf.to_container(config.game, resolve=True)
    assert isinstance(described, dict)
    without = {key: value for key, value in described.items() if key not in ("penalties", "augmentation")}
    return _sizes(json.dumps(without))


@functools.cache
def _sizes(game: str) -> tuple[int, int]:
    """What the sides of a game have, by its configuration as JSON; without memory for weights where that can be."""
    try:
        with torch.device("meta"), _NoNumbers():
            built = building.build(json.loads(game), "game")
    except InstantiationException:  # an initialisation that has to see numbers
        built = building.build(json.loads(game), "game")
    sides = (built.generator_side, built.discriminator_side)
    generator, discriminator = (sum(p.numel() for p in side.parameters()) for side in sides)
    return generator, discriminator


def read_measured() -> dict[str, Any]:
    """What bench/zoo.py has written, by data set; {} before it has been run."""
    file = config_folder() / "experiment" / "measured.json"
    return json.loads(file.read_text()) if file.exists() else {}


def result(recipe: str, measured: Mapping[str, Any]) -> str:
    """What was measured of a recipe, in words."""
    found = [measured["elsewhere"][recipe]] if recipe in measured.get("elsewhere", {}) else []
    for data, shown in DATA.items():
        entry = measured.get(data, {}).get("recipes", {}).get(recipe)
        if entry:
            found.append(f"FID {_over_seeds(entry, 'fid')} on {shown}, small")
    return "; ".join(found)


def listing(recipes: Sequence[Recipe], measured: Mapping[str, Any]) -> str:
    """All recipes as a table for the terminal."""
    shown = Table("recipe", "paper", "parts", "parameters G, D", "data", "expected", "measured")
    for recipe in recipes:
        shown.add_row(
            recipe.name,
            recipe.paper,
            " ".join(recipe.typed),
            " ".join(map(_short, recipe.parameters)),
            recipe.data,
            recipe.expected,
            result(recipe.name, measured),
        )
    file = io.StringIO()
    Console(file=file, width=shutil.get_terminal_size((180, 0)).columns, highlight=False, markup=False).print(
        shown
    )
    return file.getvalue() + "ganforge zoo NAME says more of one, ganforge train experiment=NAME trains it.\n"


def in_full(recipe: Recipe, measured: Mapping[str, Any]) -> str:
    """One recipe, a line a fact."""
    lines = [
        ("recipe", recipe.name),
        ("paper", recipe.paper),
        *(("arXiv", number) for number in recipe.arxiv),
        *recipe.parts.items(),
        ("parameters", "generator {:,}, discriminator {:,}".format(*recipe.parameters)),
        ("data", recipe.data),
        ("length", recipe.length),
        ("expected", recipe.expected),
        ("measured", result(recipe.name, measured) or "not yet"),
        ("source", str(config_folder() / "experiment" / f"{recipe.name}.yaml")),
        ("train it", f"ganforge train experiment={recipe.name}"),
    ]
    return "".join(f"{key:<11} {value}\n" for key, value in lines)


def table(recipes: Sequence[Recipe], measured: Mapping[str, Any]) -> list[str]:
    """All recipes as lines of Markdown."""
    lines = ["| recipe | paper | parts | parameters G, D | data | expected | measured |", "|---" * 7 + "|"]
    for recipe in recipes:
        papers = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in recipe.arxiv)
        cells = (
            f"`{recipe.name}`",
            f"{recipe.paper} {papers}".strip(),
            " ".join(f"`{word}`" for word in recipe.typed),
            ", ".join(map(_short, recipe.parameters)),
            recipe.data,
            recipe.expected,
            result(recipe.name, measured),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(recipes: Sequence[Recipe], measured: Mapping[str, Any]) -> str:
    """docs/zoo.md."""
    parts = [PAGE, "\n".join(table(recipes, measured))]
    for data, shown in DATA.items():
        if data in measured:
            parts += [f"## Measured on {shown}", *_study(data, shown, measured[data])]
    return "\n\n".join(parts) + "\n"


PAGE = """# The zoo

This page is made by `ganforge zoo markdown=true out=docs/zoo.md`, from the recipes in `conf/experiment` and from
measurements. A recipe is a paper's choice of parts and numbers; its YAML file says where each number comes from.

```sh
ganforge zoo                                        # this table
ganforge zoo sngan_cifar10                          # one recipe in full
ganforge train experiment=sngan_cifar10             # trains it
ganforge train experiment=sngan_cifar10 loss=wasserstein penalty=[r1] # with other parts
```

[Adding a paper](adding_a_paper.md) shows how a recipe is made; [Few images](few_images.md) measures augmentations
and LeCam where data are few.

## Recipes

Parts are as they are typed; what is not named is the default, `game=synthesis` among it, and a model takes labels in
its own way unless a head is named. Expected is what the paper, or another's table, says of the recipe's own data at
full length, and unconfirmed what could not be looked up there; measured is far less, or what the page named there
shows."""


def _study(data: str, shown: str, section: Mapping[str, Any]) -> list[str]:
    entries: Mapping[str, Any] = section["recipes"]
    suffix = "" if data == "digits" else f"_{data}"
    features = "the digits extractor" if data == "digits" else "a classifier trained on the data"
    lines = [
        "| recipe | kimg | parameters G, D | FID | KID | precision | recall | coverage | images/s | s | seeds |",
        "|---" * 11 + "|",
    ]
    for name, entry in entries.items():
        cells = [
            f"`{name}`",
            f"{entry['kimg']:g}",
            ", ".join(map(_short, entry["parameters"])),
            *(_over_seeds(entry, figure) for figure in FIGURES),
            f"{mean(1000 * entry['kimg'] / seconds for seconds in _values(entry, 'cpu_seconds')):,.0f}",
            f"{mean(_values(entry, 'cpu_seconds')):.0f}",
            str(len(entry["seeds"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    halves = section.get("fid_real_halves")
    against = f" Two halves of the real data have FID {halves:.2g}." if halves else ""
    text = (
        f"`python bench/zoo.py --data {data}` trains each recipe with its game, loss, penalties, head and "
        "augmentation, but small networks, other learning rates and half a minute or so of one CPU thread: to see that "
        f"it learns, and not which is best. Figures are by {features}, mean and standard deviation over seeds where "
        f"there are several.{against} Seconds are those of one core that the whole run took, with its start and "
        f"its scoring, and images/s are by them.\n\n{section['about']}"
    )
    names = list(entries)
    short = [f"`{name}`" for name in names if mean(_values(entries[name], "fid")) > NOT_LEARNED]
    if short:
        text += f"\n\nNot learned at this length (FID above {NOT_LEARNED}): {', '.join(short)}."
    pictures = []
    for start in range(0, len(names), 4):
        row = names[start : start + 4]
        pictures.append(f"| {' | '.join(f'`{name}`' for name in row)} |")
        if start == 0:
            pictures.append("|---" * len(row) + "|")
        images = (f"![{shown} by {name}](zoo/{name}{suffix}.png)" for name in row)
        pictures.append(f"| {' | '.join(images)} |")
    return [
        text,
        "\n".join(lines),
        "Samples of the first seed, one row a class where the recipe is told of them:",
        "\n".join(pictures),
    ]


def _values(entry: Mapping[str, Any], figure: str) -> list[float]:
    return [scores[figure] for scores in entry["seeds"].values()]


def _over_seeds(entry: Mapping[str, Any], figure: str) -> str:
    values = _values(entry, figure)
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{mean(values):.3g} ± {stdev(values):.2g}"


def _short(count: int) -> str:
    """A number of parameters in three figures."""
    return f"{count / 1e6:.3g} M" if count >= 999_500 else f"{count / 1e3:.3g} k"
