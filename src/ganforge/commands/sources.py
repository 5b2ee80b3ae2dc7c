"""What either side of a comparison may be: images, a generator, or statistics, recognised by looking at it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganforge.commands import building
from ganforge.commands.checkpoints import Trained, load_trained
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.options import options
from ganforge.datasets.arrays import array
from ganforge.datasets.image_folder import image_folder
from ganforge.datasets.pictures import Resize
from ganforge.datasets.samples import Samples, TensorSamples
from ganforge.datasets.shards import INDEX_FILE
from ganforge.datasets.streaming import streaming
from ganforge.draws import Draws
from ganforge.evaluation.evaluator import KnownStatistics, NonFiniteSamplesError, RealData
from ganforge.evaluation.ranks import Ranks
from ganforge.evaluation.sample import Model, Statistics
from ganforge.evaluation.statistics_file import is_statistics_file, read_statistics
from ganforge.games.sampling import GameModel, Manner, Sampler, generate, proportional_labels
from ganforge.games.sampling_method import SamplingMethod, judged
from ganforge.images import to_uint8
from ganforge.networks.exported import load_exported
from ganforge.progress import show_progress

log = logging.getLogger("ganforge")

ARRAYS = (".npz", ".npy")
EXPORTED = (".pt", ".pth", ".ts", ".jit", ".torchscript", ".onnx")


@dataclass
class Generator:
    """A source that makes as many samples as are asked for.

    Attributes:
        name: of the file.
        sample: makes a batch.
        class_counts: in whose proportions labels are asked for; empty for an unconditional generator.
        class_names: of the labels; empty where the file does not say.
        device: where it runs.
        truncation: bound of |z|.
        model: for the metrics of models.
        facts: for the stamp.
    """

    name: str
    sample: Sampler
    class_counts: Sequence[int]
    class_names: Sequence[str]
    device: torch.device
    truncation: float | None
    model: Model
    facts: dict[str, Any]

    def batches(
        self, number: int, *, seed: int, batch_size: int, what: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of `number` samples with their labels, under a progress bar."""
        ranks = Ranks.current()
        total = -(-number // batch_size)
        mine = len(range(ranks.rank, total, ranks.size))
        return show_progress(self._made(number, seed, batch_size, ranks), mine, what)

    def as_data(self, number: int, *, seed: int, batch_size: int) -> TensorSamples:
        """`number` samples as a data set, in memory."""
        pairs = list(self._made(number, seed, batch_size, Ranks()))
        samples = torch.cat([samples.cpu() for samples, _ in pairs])
        wrong = int((~samples.flatten(1).isfinite().all(dim=1)).sum())
        if wrong:
            raise NonFiniteSamplesError(f"{wrong} of {number} samples of {self.name} hold NaN or infinity")
        return TensorSamples(
            self.name,
            to_uint8(samples) if samples.ndim == 4 else samples,
            torch.cat([labels.cpu() for _, labels in pairs]),
            class_names=self.class_names,
            num_classes=len(self.class_counts),
        )

    def _made(self, number: int, seed: int, batch_size: int, ranks: Ranks) -> Iterator[tuple[Tensor, Tensor]]:
        return generate(
            self.sample,
            proportional_labels(self.class_counts, number),
            seed=seed,
            batch_size=batch_size,
            device=self.device,
            truncation=self.truncation,
            rank=ranks.rank,
            ranks=ranks.size,
        )


Source = RealData | KnownStatistics | Generator


def open_source(
    key: str, value: Any, settings: Mapping[str, Any], device: torch.device, class_counts: Sequence[int] = ()
) -> Source:
    """What `KEY=VALUE` names.

    Args:
        key: generated, real or held_out, for messages.
        value: a path, or the settings of a data set.
        settings: of the command.
        device: where generators run.
        class_counts: labels for a generator that does not bring its own.

    Raises:
        UserError: nothing that can be used.
    """
    if isinstance(value, Mapping):
        data: RealData = building.build(dict(value), key)
        return data
    path = Path(str(value)).expanduser()
    if not path.exists():
        raise UserError(
            f"{key}={value} does not exist, and there is no data set of that name: it can be a folder or ZIP of "
            "images, a .npz or .npy file, a checkpoint or run's folder, a TorchScript or ONNX generator, or a data set"
            f"{did_you_mean(str(value), options()['data'])}"
        )
    with user_errors():
        if path.suffix == ".ckpt" or (path.is_dir() and _is_run(path)):
            return checkpoint_generator(
                load_trained(str(path), ema=settings["ema"], device=device, trust=settings["trust"], key=key),
                settings,
            )
        if path.suffix in EXPORTED:
            return _exported(path, settings, device, class_counts)
        if path.suffix == ".npz" and is_statistics_file(path):
            known = read_statistics(path)
            return KnownStatistics(path.name, Statistics(known.mu, known.sigma), _sha256(path), known.stamp)
        size = settings["image_size"]
        found = open_images(path, key, size, resize="refuse" if size is None else "crop")
        if found is not None:
            return found
    raise UserError(
        f"{key}={value} is no kind of file that is known here: images come in a folder, a .zip, .npz or .npy file, "
        "generators in .ckpt, .pt or .onnx files, statistics in .npz files"
    )


def open_images(
    path: Path, key: str, image_size: int | None, *, channels: int | None = None, resize: Resize
) -> Samples | None:
    """The images of an array file, a folder of shards, or a folder or ZIP of pictures; None for any other file.

    Args:
        key: the setting that names the path, for messages.
        image_size, channels, resize: of pictures, as `image_folder` takes them.
    """
    if path.suffix in ARRAYS:
        return array(path, what=key)
    if (path / INDEX_FILE).is_file():
        return streaming(path, what=key)
    if path.is_dir() or path.suffix == ".zip":
        return image_folder(path, image_size=image_size, channels=channels, resize=resize, what=key)
    return None


def manner_of(settings: Mapping[str, Any]) -> Manner:
    """How the settings want samples to be made.

    Raises:
        UserError: a setting that is out of range, or two that do not go together.
    """
    with user_errors():
        manner = Manner(**{field.name: settings[field.name] for field in fields(Manner)})
    if settings["sampling"] is not None and manner.truncation is not None:
        raise UserError(
            f"truncation={manner.truncation} bounds z, which sampling=... takes from all of its law: leave one of the "
            "two out"
        )
    return manner


def checkpoint_generator(trained: Trained, settings: Mapping[str, Any]) -> Generator:
    """A checkpoint's generator with the settings of sampling."""
    game, manner, counts = trained.game, manner_of(settings), trained.class_counts
    batch_size, facts = settings["batch_size"], {}
    if manner.balanced and not counts:
        raise UserError(f"balanced=true needs classes, and {trained.path} is unconditional: leave it out")
    with user_errors():
        side = manner.side(game, trained.generator_side, counts, batch_size)
        sample: Sampler = lambda draws, labels: game.sample(draws, labels, side)  # noqa: E731
        if settings["sampling"] is not None:
            method: SamplingMethod = building.build(settings["sampling"], "sampling")
            if not getattr(getattr(game, "loss", None), "estimates_density_ratio", False):
                log.warning(
                    "sampling by the discriminator takes its logits for the logarithm of a density ratio, which "
                    "loss=%s does not teach it",
                    type(getattr(game, "loss", None)).__name__,
                )
            sample = method(judged(game, side), manner.classes(counts), batch_size)
            facts["sampling"] = {"method": type(method).__name__, **method.parameters()}
    return Generator(
        name=trained.path.name,
        sample=sample,
        class_counts=manner.classes(counts),
        class_names=trained.class_names,
        device=trained.device,
        truncation=manner.truncation,
        model=GameModel(game, side, len(counts), trained.device),
        facts={
            "source": f"{trained.path.name} of {trained.run}",
            "checkpoint_sha256": trained.sha256,
            "kimg": trained.kimg,
            "weights": "ema" if settings["ema"] else "raw",
            **manner.facts(trained.generator_side, counts, batch_size),
            **facts,
        },
    )


class _ExportedModel:
    """An exported network as the metrics of models ask for it."""

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network = network
        self.latent_dim = int(network.latent_dim)
        self.num_classes = int(network.num_classes)
        self.device = device

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.network(z.to(self.device), labels.to(self.device))
        return images

    def discriminator_features(self, images: Tensor, labels: Tensor) -> Tensor | None:
        return None

    def sample(self, draws: Draws, labels: Tensor) -> Tensor:
        return self.generate(draws.normal(len(labels), self.latent_dim), labels)


def _exported(
    path: Path, settings: Mapping[str, Any], device: torch.device, class_counts: Sequence[int]
) -> Generator:
    for key in ("truncation_psi", "sampling"):
        if settings[key] is not None:
            raise UserError(
                f"{key}=... is for checkpoints: {path} holds a network that cannot be looked into"
            )
    network = load_exported(path, settings["latent_dim"], settings["num_classes"]).to(device)
    model = _ExportedModel(network, device)
    if network.takes_labels and not model.num_classes:
        log.warning("%s takes labels, and gets 0 throughout: num_classes=... says how many it knows", path)
    same = len(class_counts) == model.num_classes and not settings["balanced"]
    counts = class_counts if same else [1] * model.num_classes
    return Generator(
        name=path.name,
        sample=model.sample,
        class_counts=counts,
        class_names=(),
        device=device,
        truncation=settings["truncation"],
        model=model,
        facts={"source": path.name, "checkpoint_sha256": _sha256(path)}
        | ({"labels": "balanced"} if settings["balanced"] and counts else {}),
    )


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("checkpoints", "config.yaml", "best.ckpt", "last.ckpt"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
