"""`ganforge sample`: pictures from a checkpoint, each with its origin written into it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ganforge.commands import building
from ganforge.commands.checkpoints import Trained, choose_device, load_trained
from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.run_folder import make_folder
from ganforge.commands.sources import checkpoint_generator, manner_of
from ganforge.draws import Draws
from ganforge.games.sampling import generate, proportional_labels
from ganforge.images import grid, save_png, scatter, to_uint8
from ganforge.progress import show_progress

log = logging.getLogger("ganforge")

_ROWS = 10  # of the grids that some games have beside their samples
_OF_SAMPLES_ALONE = ("truncation_psi", "batch_norm", "sampling")  # and not of those grids


def sample(config: DictConfig) -> None:
    """Writes `num` PNGs and one grid; for 2-D data one scatter plot and the points as text.

    Raises:
        UserError: a checkpoint or labels that cannot be used, or a folder that cannot be written.
    """
    settings = plain(config)
    for key in ("num", "batch_size"):
        if settings[key] < 1:
            raise UserError(f"{key}={settings[key]} must be at least 1")
    manner_of(settings)
    building.check(settings["sampling"], "sampling")
    if settings["balanced"] and settings["labels"] is not None:
        raise UserError(
            f"labels={settings['labels']} says which classes, and balanced=true all of them: leave one out"
        )
    device = choose_device(settings["device"])
    trained = load_trained(
        settings["checkpoint"], ema=settings["ema"], device=device, trust=settings["trust"]
    )
    labels = _labels(trained, settings)
    out = Path(settings["out"] or _beside(trained, settings["seed"])).expanduser()
    make_folder(out, "out")
    generator = checkpoint_generator(trained, settings)
    with user_errors():
        batch_size = settings["batch_size"]
        made = generate(
            generator.sample,
            labels,
            seed=settings["seed"],
            batch_size=batch_size,
            device=device,
            truncation=generator.truncation,
        )
        batches = show_progress(made, -(-len(labels) // batch_size), "sampling")
        samples = torch.cat([images.cpu() for images, _ in batches])
        origin = _origin(trained, settings["seed"], generator.facts)
        if samples.ndim == 4:
            _write_images(out, to_uint8(samples), labels, trained, origin)
            draws = Draws(settings["seed"], "pictures", truncation=generator.truncation)
            _write_pictures(out, labels[:_ROWS].to(device), draws, trained, origin)
        else:
            _write_points(out, samples, origin)
    log.info("%d samples: %s", len(samples), out)


def _labels(trained: Trained, settings: Mapping[str, Any]) -> Tensor:
    """One label a sample: those asked for in turn, else the data's frequencies, or even ones, in order of class."""
    asked, number = settings["labels"], settings["num"]
    classes = len(trained.class_counts)
    if asked is None:
        counts = manner_of(settings).classes(trained.class_counts)
        return proportional_labels(counts, number).sort().values
    if not classes:
        raise UserError(f"labels={list(asked)}: {trained.path} is unconditional; leave labels out")
    wrong = [label for label in asked if not 0 <= label < classes]
    if wrong or not asked:
        raise UserError(f"labels={list(asked)}: the checkpoint's labels are 0 to {classes - 1}")
    return torch.tensor([asked[i % len(asked)] for i in range(number)])


def _beside(trained: Trained, seed: int) -> Path:
    folder = trained.path.parent
    run = folder.parent if folder.name == "checkpoints" else folder
    return run / "generated" / f"{trained.path.stem}_seed{seed}"


def _origin(trained: Trained, seed: int, facts: Mapping[str, Any]) -> dict[str, str]:
    """What every picture says of itself; how it was sampled, where that is out of the ordinary."""
    manner = {key: facts.get(key) for key in ("truncation", "truncation_psi", "batch_norm", "sampling")}
    unusual = {key: value for key, value in manner.items() if value not in (None, "running")}
    return {
        "synthetic": "true",
        "Software": "ganforge",
        "Description": "Synthetic image made by a generative adversarial network.",
        "run": trained.run,
        "checkpoint_sha256": trained.sha256,
        "kimg": f"{trained.kimg:g}",
        "weights": facts["weights"],
        "seed": str(seed),
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in unusual.items()},
    }


def _write_images(
    out: Path, images: Tensor, labels: Tensor, trained: Trained, origin: dict[str, str]
) -> None:
    digits = len(str(len(images) - 1))
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        text = {**origin, "index": str(index)}
        if trained.class_counts:
            text |= {"label": str(label), "class_name": trained.class_names[label]}
        save_png(out / f"{index:0{digits}}.png", image, text)
    columns = max(1, round(len(images) ** 0.5))
    save_png(
        out / "grid.png", grid(images, columns=columns), {**origin, "labels": json.dumps(labels.tolist())}
    )


@torch.no_grad()
def _write_pictures(
    out: Path, labels: Tensor, draws: Draws, trained: Trained, origin: dict[str, str]
) -> None:
    """What else the game has to show, a grid each: by the weights as they are, and of latents as they are drawn."""
    own = {key: text for key, text in origin.items() if key not in _OF_SAMPLES_ALONE}
    for name, images in trained.game.pictures(draws, labels, trained.generator_side).items():
        save_png(
            out / f"{name}.png", grid(to_uint8(images.flatten(0, 1)).cpu(), columns=images.shape[1]), own
        )


def _write_points(out: Path, points: Tensor, origin: dict[str, str]) -> None:
    save_png(out / "grid.png", scatter(points, extent=1.2 * points.abs().max().item()), origin)
    lines = [",".join(f"{value:.8g}" for value in point) for point in points.tolist()]
    (out / "points.csv").write_text("\n".join(lines) + "\n")
