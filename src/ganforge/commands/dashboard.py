"""`ganforge dashboard`: the Weights & Biases workspace of a project, with the panels that GANs are watched by."""

from __future__ import annotations

import importlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors

log = logging.getLogger("ganforge")

_SIDES = ("discriminator", "generator")


def dashboard(config: DictConfig) -> None:
    """Saves the workspace where someone is logged in, and prints it as JSON elsewhere, or writes it to `out`.

    Raises:
        UserError: wandb-workspaces is not installed, the file cannot be written, or the server refuses.
    """
    settings = plain(config)
    workspace = build(settings)
    if settings["out"] is None and _logged_in():
        _save(workspace, settings["entity"])
        log.info("%s: %s", settings["name"], workspace.url)
        return
    view = workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(view, indent=2) + "\n"
    if settings["out"] is not None:
        out = Path(settings["out"]).expanduser()
        with user_errors():
            out.write_text(text)
        log.info("the workspace as JSON: %s", out)
    else:
        print(text, end="")
        log.info("not logged in to W&B: this is what `wandb login` and the same command save there")


def build(settings: dict[str, Any]) -> Any:
    """The workspace, a `wandb_workspaces.workspaces.Workspace`; nothing is asked of a server."""
    try:
        panels: Any = importlib.import_module("wandb_workspaces.reports.v2")
        workspaces: Any = importlib.import_module("wandb_workspaces.workspaces")
    except ImportError as error:
        raise UserError(
            f"a workspace needs wandb-workspaces: pip install 'ganforge[dashboard]' ({error})"
        ) from error

    def lines(title: str, *names: str, **more: Any) -> Any:
        return panels.LinePlot(title=title, x="kimg", y=list(names), **more)

    def both(title: str, name: str) -> Any:
        return lines(title, *(f"train/{side}/{name}" for side in _SIDES))

    figure = settings["figure"]
    best, final = (panels.SummaryMetric(f"{when}/{figure}") for when in ("best", "final"))
    parameters = [panels.Config(name) for name in settings["parameters"]]
    sections = {
        "Scores": [
            lines(figure, f"val/{figure}", log_y=True),
            lines("precision and recall", "val/precision", "val/recall"),
            lines("density and coverage", "val/density", "val/coverage"),
            lines("KID", "val/kid_mean"),
            panels.BarPlot(title=f"best {figure}", metrics=[f"best/{figure}"]),
            panels.WeavePanelSummaryTable(table_name="evaluations"),
        ],
        "Samples": [
            panels.MediaBrowser(title="the same latents through training", media_keys=["samples"]),
        ],
        "Losses": [
            both("adversarial", "adversarial"),
            panels.LinePlot(
                title="all of the discriminator", x="kimg", metric_regex="^train/discriminator/.*"
            ),
            panels.LinePlot(title="all of the generator", x="kimg", metric_regex="^train/generator/.*"),
            both("norm of the gradient", "gradient_norm"),
            both("learning rate", "learning_rate"),
        ],
        "Discriminator": [
            lines("accuracy", *(f"train/discriminator/accuracy_{kind}" for kind in ("real", "fake"))),
            lines("mean logits", *(f"train/discriminator/{kind}_logits" for kind in ("real", "fake"))),
            lines("overfitting, with held_out", "overfitting/r_v", "overfitting/r_t"),
        ],
        "Throughput": [
            lines("images a second", "train/images_per_second"),
            lines("memory in GB", "train/memory_gb", "train/device_memory_gb"),
        ],
        "Sweep": [
            panels.ParallelCoordinatesPlot(
                title=f"settings and {figure}",
                columns=[panels.ParallelCoordinatesPlotColumn(metric=m) for m in [*parameters, best, final]],
            ),
            panels.ParameterImportancePlot(with_respect_to=f"best/{figure}"),
            *(  # which takes numbers only
                panels.ScatterPlot(title=p.name, x=p, y=best, log_y=True)
                for p in parameters
                if not p.name.startswith("parts.")
            ),
        ],
    }
    group = settings["group"]
    return workspaces.Workspace(
        entity=settings["entity"] or "",
        project=settings["project"],
        name=settings["name"],
        sections=[
            workspaces.Section(name=name, panels=shown, is_open=True) for name, shown in sections.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis="kimg"),
        runset_settings=workspaces.RunsetSettings(
            filters=workspaces.And(workspaces.Metric("Group") == group) if group is not None else ""
        ),
        auto_generate_panels=True,  # for the rest, histograms among it
    )


def _logged_in() -> bool:
    """Whether there is a key for the server, and it is not to be left alone."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return False
    import wandb
    from requests.utils import get_netrc_auth

    return bool(os.environ.get("WANDB_API_KEY")) or bool(get_netrc_auth(wandb.setup().settings.base_url))


def _save(workspace: Any, entity: str | None) -> None:
    import wandb

    try:
        workspace.entity = entity or wandb.Api().default_entity or ""
        workspace.save()
    except Exception as error:  # of the server's, the network's and the library's many kinds
        raise UserError(
            f"W&B did not take the workspace: {error}; out=FILE writes it as JSON instead"
        ) from error
