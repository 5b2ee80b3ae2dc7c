"""Types of the commands' top-level settings, so that a wrong one is refused by name before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class EmaConfig:
    half_life_kimg: Any = MISSING  # a number or a schedule
    ramp_up: float | None = MISSING


@dataclass
class ClipNormConfig:
    discriminator: float | None = None
    generator: float | None = None


@dataclass
class InitConfig:
    path: str | None = None
    strict: bool = MISSING


@dataclass
class FastConfig:
    all: bool = MISSING
    channels_last: bool | None = None
    bf16: bool | None = None
    fused_pass: bool | None = None
    tf32: bool | None = None
    resident: bool | None = None
    compile: bool | None = None
    reuse_fakes: bool | None = None
    lazy_correction: bool = MISSING


@dataclass
class RecipeConfig:
    """Where an experiment comes from: what `ganforge zoo` says of it, and nothing that training looks at."""

    paper: str | None = None
    arxiv: list[str] = field(default_factory=list)
    expected: str | None = None


@dataclass
class TrainConfig:
    name: str = MISSING
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    tags: list[str] = field(default_factory=list)
    seed: int = MISSING
    total_kimg: float = MISSING
    batch_size: int = MISSING
    conditional: bool | None = None
    discriminator_steps: int = MISSING
    accumulate: int = MISSING
    clip_norm: ClipNormConfig = field(default_factory=ClipNormConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    stop: dict[str, Any] = field(default_factory=dict)
    workers: int = MISSING
    fast: FastConfig = field(default_factory=FastConfig)
    init: InitConfig = field(default_factory=InitConfig)
    freeze_discriminator: Any = None
    resume: str | None = None
    held_out: str | None = None
    num_classes: int = MISSING
    game: Any = MISSING
    model: Any = MISSING
    conditioning: Any = None
    head: Any = None
    augment: Any = None
    loss: Any = MISSING
    penalty: dict[str, Any] = field(default_factory=dict)
    data: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    metrics: Any = MISSING
    callbacks: Any = MISSING
    logger: dict[str, Any] = field(default_factory=dict)
    trainer: Any = MISSING


@dataclass
class OwnProfileConfig:
    warmup: int = MISSING
    rounds: int | None = None
    out: str = MISSING
    only: str | None = None
    largest_batch: bool = MISSING


# TrainConfig and these; merged over what train.yaml has set, and so without values of its own.
ProfileConfig = make_dataclass(
    "ProfileConfig",
    [
        (each.name, get_type_hints(schema)[each.name], field(default=MISSING))
        for schema in (TrainConfig, OwnProfileConfig)
        for each in fields(schema)
    ],
    bases=(TrainConfig,),
)


@dataclass
class EvaluateConfig:
    checkpoint: str | None = None
    generated: Any = None
    real: Any = None
    held_out: Any = None
    metrics: Any = None
    compute: list[str] | None = None
    model: Any = None
    num_samples: int | None = None
    batch_size: int = MISSING
    seed: int = MISSING
    seeds: int = MISSING
    bootstrap: int = MISSING
    ema: bool = MISSING
    batch_norm: str = MISSING
    truncation: float | None = None
    truncation_psi: float | None = None
    balanced: bool = MISSING
    sampling: Any = None
    latent_dim: int | None = None
    num_classes: int | None = None
    image_size: int | None = None
    device: str = MISSING
    processes: int = MISSING
    save_stats: str | None = None
    neighbours: int = MISSING
    out: str | None = None
    trust: list[str] = field(default_factory=list)


@dataclass
class SampleConfig:
    checkpoint: str = MISSING
    num: int = MISSING
    out: str | None = None
    labels: list[int] | None = None
    batch_size: int = MISSING
    seed: int = MISSING
    ema: bool = MISSING
    batch_norm: str = MISSING
    truncation: float | None = None
    truncation_psi: float | None = None
    balanced: bool = MISSING
    sampling: Any = None
    device: str = MISSING
    trust: list[str] = field(default_factory=list)


@dataclass
class ZooConfig:
    name: str | None = None
    markdown: bool = MISSING
    out: str | None = None


@dataclass
class DashboardConfig:
    project: str = MISSING
    entity: str | None = None
    name: str = MISSING
    group: str | None = None
    figure: str = MISSING
    parameters: list[str] = field(default_factory=list)
    out: str | None = None


@dataclass
class ReportConfig:
    runs: list[str] = MISSING
    out: str = MISSING
    title: str | None = None
    watch: bool = MISSING
    port: int = MISSING


@dataclass
class CompareConfig:
    runs: list[str] = MISSING
    figures: list[str] | None = None
    baseline: str | None = None
    confidence: float = MISSING
    resamples: int = MISSING
    seed: int = MISSING
    format: str = MISSING
    out: str | None = None


@dataclass
class PrepareConfig:
    source: str | None = None
    out: str | None = None
    format: str | None = None
    image_size: int | None = None
    channels: int | None = None
    num_classes: int | None = None
    resize: str = MISSING
    skip_broken: bool = MISSING
    workers: int | None = None
    shard_mb: float = MISSING


SCHEMAS: dict[str, type] = {
    "train": TrainConfig,
    "profile": ProfileConfig,
    "evaluate": EvaluateConfig,
    "sample": SampleConfig,
    "prepare": PrepareConfig,
    "zoo": ZooConfig,
    "dashboard": DashboardConfig,
    "report": ReportConfig,
    "compare": CompareConfig,
}


def register() -> None:
    store = ConfigStore.instance()
    for command, schema in SCHEMAS.items():
        store.store(name=f"{command}_schema", node=schema)


def settings_of(command: str) -> set[str]:
    """The command's top-level settings, each of which is always there."""
    return {each.name for each in fields(SCHEMAS[command])}
