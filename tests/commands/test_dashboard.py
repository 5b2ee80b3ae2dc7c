"""The workspace on Weights & Biases: what is in it, and where it goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb_workspaces")

LOGGED = {  # see docs/where_everything_lies.md
    "val/fid",
    "train/discriminator/accuracy_real",
    "train/discriminator/accuracy_fake",
    "train/discriminator/adversarial",
    "train/generator/adversarial",
    "train/images_per_second",
}


def panels(view: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The panels of each section."""
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_without_a_login_it_is_printed_as_json(
    no_wandb_around: None, ganforge: Any, monkeypatch: Any
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "nowhere")
    outcome = ganforge("dashboard", "project=faces")
    assert outcome.code == 0, outcome.err
    assert "not logged in" in outcome.err
    view = json.loads(outcome.out)
    assert view["project"] == "faces"
    shown = panels(view)
    assert {"Scores", "Samples", "Losses", "Discriminator", "Throughput", "Sweep"} <= set(shown)
    lines = [p["config"] for of in shown.values() for p in of if p["viewType"] == "Run History Line Plot"]
    assert {line["xAxis"] for line in lines} == {"kimg"}
    assert {name for line in lines for name in line.get("metrics", [])} >= LOGGED
    assert [p["config"]["mediaKeys"] for p in shown["Samples"]] == [["samples"]]
    kinds = [panel["viewType"] for panel in shown["Sweep"]]
    assert {"Parallel Coordinates Plot", "Parameter Importance"} <= set(kinds)


def test_figure_parameters_and_group_are_those_asked_for(ganforge: Any, tmp_path: Path) -> None:
    asked = ("figure=modes_covered", "parameters=[batch_size,loss.gamma]", "group=my_sweep", "name=mine")
    assert ganforge("dashboard", *asked, "out=it.json").code == 0
    view = json.loads((tmp_path / "it.json").read_text())
    assert view["displayName"] == "mine"
    (parallel, *_) = panels(view)["Sweep"]
    assert [column["accessor"] for column in parallel["config"]["columns"]] == [
        "config:batch_size.value",
        "config:loss.value.gamma",
        "summary:best/modes_covered",
        "summary:final/modes_covered",
    ]
    (runs,) = view["spec"]["section"]["runSets"]
    assert [(f["key"]["name"], f["value"]) for f in runs["filters"]["filters"]] == [("group", "my_sweep")]


def test_with_a_login_it_is_saved(wandb_server: Any, ganforge: Any) -> None:
    outcome = ganforge("dashboard", "project=faces", "name=ours")
    assert outcome.code == 0, outcome.err
    (view,) = wandb_server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("us", "faces", "ours")
    assert "Sweep" in panels({"spec": json.loads(view["spec"])})
    assert f"{wandb_server.url}/us/faces" in outcome.err


def test_what_cannot_be_done_is_said_in_one_message(
    no_wandb_around: None, ganforge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ganforge("dashboard", "out=no/such/folder.json").refuses("no/such/folder.json", "No such file")
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    ganforge("dashboard", "out=it.json").refuses("pip install 'ganforge[dashboard]'")
