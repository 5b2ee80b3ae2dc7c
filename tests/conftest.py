"""What tests of several folders share: folders as runs leave them, written in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

WriteRun = Callable[..., Path]


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """Writes a run's folder: its configuration, curves, scores, grids and whatever else is asked for."""
    return _write_run


def _write_run(
    folder: Path,
    *,
    seed: int = 0,
    loss: str = "hinge.Hinge",
    lr: float = 1e-3,
    fid: Sequence[float] = (30.0, 20.0, 10.0),
    end: str | None = "ended",
    failure: str | None = None,
    protocol: str = "aaaa0000",
    settings: Mapping[str, Any] | None = None,
    grids: int = 0,
    health: Sequence[Mapping[str, Any]] = (),
    figures: Mapping[str, float] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "name": "digits",
        "seed": seed,
        "total_kimg": float(len(fid)),
        "loss": {"_target_": f"ganforge.losses.{loss}"},
        "game": {"loss": {"_target_": f"ganforge.losses.{loss}"}},
        "optimizer": {"generator": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": lr}},
        **(settings or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([f"loss={loss.partition('.')[0]}", f"seed={seed}"]))
    rows = ["images_seen,kimg,train/generator/adversarial,val/fid"]
    rows += [f"{1000 * k},{k},{0.1 * k:g},{value}" for k, value in enumerate(fid, start=1)]
    (folder / "metrics.csv").write_text("".join(f"{row}\r\n" for row in rows))
    scores = {
        "scores": {"fid": fid[-1], "precision": 0.5, **(figures or {})},
        "made_by": {
            "protocol": protocol,
            "extractor": {"name": "digits"},
            "generated": {"num_samples": 100, "batch_norm": protocol},
        },
        "better": {"fid": "lower", "precision": "higher", **dict.fromkeys(figures or {}, "higher")},
        "monitor": "fid",
        "curves": {"val": f"few{protocol}"},
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    start: dict[str, Any] = {
        "time": "2026-01-01T10:00:00+00:00",
        "command": ["ganforge", "train"],
        "seed": seed,
    }
    if end is not None:
        start["end"] = {"time": "2026-01-01T11:00:00+00:00", "state": end, "reason": failure or "3 kimg"}
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    if failure is not None:
        (folder / "failure.txt").write_text(failure + "\n")
    if health:
        (folder / "health.jsonl").write_text("".join(json.dumps(event) + "\n" for event in health))
    for i in range(grids):
        path = folder / "samples" / f"{i * len(fid) / max(grids - 1, 1):010.3f}_kimg.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (64, 64), 40 + 10 * i).save(path)
    return folder
