"""How scores are shown and kept: a table with what made them, and a JSON file that nothing else is written over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ganforge.evaluation.evaluator import Evaluator
    from ganforge.evaluation.stamp import Stamp

ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}


def show(title: str, scores: dict[str, float], evaluator: Evaluator, stamp: Stamp) -> None:
    """The scores as a table, and under it what made them."""
    spreads = {name: value for name, value in scores.items() if name.endswith("_over_seeds")}
    table = Table()
    table.add_column("figure")
    table.add_column("value", justify="right")
    if spreads:
        table.add_column("± over seeds", justify="right")
    table.add_column("better")
    for name, value in scores.items():
        if name not in spreads:
            spread = [f"{spreads[f'{name}_over_seeds']:.2g}"] if spreads else []
            table.add_row(name, f"{value:.5g}", *spread, ARROWS[evaluator.figures.get(name, "neither")])
    console = Console(soft_wrap=True, highlight=False)
    console.print(title)
    console.print(table)
    note = "comparable with papers" if evaluator.comparable_with_papers else "not comparable with papers"
    console.print(f"made by the {evaluator.name} extractor: {note}")
    console.print(f"protocol {stamp['protocol']}; the same figures under another protocol do not compare")
    for section in ("extractor", "real", "generated", "metrics", "versions"):
        console.print(f"  {section}: {_words(stamp[section])}", markup=False)


def _words(section: Mapping[str, Any]) -> str:
    """A section of the stamp in a line; hashes shortened."""
    parts = []
    for name, value in section.items():
        if isinstance(value, Mapping):
            parts.append(f"{name} ({_words(value)})" if value else name)
        elif isinstance(value, str) and len(value) == 64:
            parts.append(f"{name} {value[:12]}")
        elif value is not None:
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def free_file(path: Path, stamp: Stamp) -> Path:
    """The file, or it with _2, _3, ... at its end: scores made otherwise are never written over."""
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.stem}_{number}.json")
        try:
            made_by = json.loads(candidate.read_text())["made_by"]
        except FileNotFoundError:
            return candidate
        except (OSError, ValueError, KeyError, TypeError):
            made_by = None
        if made_by == json.loads(json.dumps(stamp)):
            return candidate
        number += 1
