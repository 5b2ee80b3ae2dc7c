"""`ganforge compare`: runs side by side, seeds together, with what chance could have made of their differences."""

from __future__ import annotations

import csv
import io
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from ganforge.commands.configuration import plain
from ganforge.commands.errors import UserError, user_errors
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.scores import ARROWS
from ganforge.evaluation.stamp import differences
from ganforge.runs import RunFolder, find_runs, grouped, holds_a_run
from ganforge.significance import bootstrap_interval, holm, least_p, mann_whitney

log = logging.getLogger("ganforge")

KINDS = ("final", "best")


@dataclass
class Cell:
    """One figure of a group.

    Attributes:
        values: a run's each.
        protocols: of those values.
        difference: of the means, this group's minus the baseline's.
        interval: of that difference, by the bootstrap.
        p: of the hypothesis that both have one law, adjusted for all groups of the column.
    """

    values: list[float] = field(default_factory=list)
    protocols: set[str | None] = field(default_factory=set)
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None

    @property
    def mean(self) -> float | None:
        """None where there are no values, or their protocols differ: those do not average."""
        return mean(self.values) if self.values and len(self.protocols) == 1 else None


@dataclass
class Group:
    """Runs that differ in their seeds only."""

    name: str
    runs: Sequence[RunFolder]
    cells: dict[tuple[str, str], Cell]

    @property
    def states(self) -> str:
        """How many runs ended, and of the others what became of them."""
        states = [run.state for run in self.runs]
        return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


@dataclass
class Comparison:
    """The groups, best first, and what has to be said of them."""

    groups: list[Group]
    columns: list[tuple[str, str]]
    better: Mapping[str, str]
    baseline: Group
    notes: list[str]


def compare(config: DictConfig) -> None:
    """Prints the comparison, or writes it to `out`.

    Raises:
        UserError: no run there, a setting that is not known, or a file that cannot be written.
    """
    settings = plain(config)
    formats: dict[str, Callable[[Comparison], str]] = {
        "table": for_terminal,
        "csv": as_csv,
        "markdown": as_markdown,
        "latex": as_latex,
    }
    if settings["format"] not in formats:
        raise UserError(
            f"format={settings['format']} is not known: it is one of {', '.join(formats)}"
            f"{did_you_mean(settings['format'], formats)}"
        )
    if not 0 < settings["confidence"] < 1:
        raise UserError(f"confidence={settings['confidence']:g} must be between 0 and 1")
    if settings["resamples"] < 1:
        raise UserError(f"resamples={settings['resamples']} must be at least 1")
    with user_errors():
        runs = find_runs([Path(folder).expanduser() for folder in settings["runs"]])
    comparison = compared(
        runs,
        figures=settings["figures"],
        baseline=settings["baseline"],
        confidence=settings["confidence"],
        resamples=settings["resamples"],
        seed=settings["seed"],
    )
    text = formats[settings["format"]](comparison)
    for note in comparison.notes:
        log.warning("%s", note)
    if settings["out"] is None:
        print(text, end="")
        return
    out = Path(settings["out"]).expanduser()
    with user_errors():
        out.write_text(text)
    log.info("%d groups of %d runs: %s", len(comparison.groups), len(runs), out)


def compared(
    runs: Sequence[RunFolder],
    *,
    figures: Sequence[str] | None,
    baseline: str | None,
    confidence: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """The comparison of these runs.

    Raises:
        UserError: a figure that none of them has, or a baseline that is none of them.
    """
    better = {name: run.better(name) for run in runs for name in run.scores}
    wanted = list(figures or dict.fromkeys(run.monitor for run in runs if run.monitor))
    for name in wanted:
        if name not in better:
            raise UserError(
                f"figures: no run has {name!r}; there are {', '.join(better) or 'none'}{did_you_mean(name, better)}"
            )
    if not wanted:
        raise UserError("none of the runs has figures to compare: they have not come to an evaluation")
    columns = [(kind, name) for name in wanted for kind in KINDS]
    groups = [
        Group(name, members, {column: _cell(members, *column) for column in columns})
        for name, members in grouped(runs)
    ]
    columns = [column for column in columns if any(group.cells[column].values for group in groups)]
    notes = _notes(runs, groups, columns)
    groups.sort(key=lambda group: _rank(group, columns, better))
    reference = groups[0] if baseline is None else _baseline(groups, baseline)
    least: list[float] = []
    for column in columns:
        own = reference.cells[column]
        tested: list[Cell] = []
        for group in groups:
            cell = group.cells[column]
            if group is reference or cell.mean is None or own.mean is None or cell.protocols != own.protocols:
                continue
            cell.difference = cell.mean - own.mean
            if min(len(cell.values), len(own.values)) >= 2:
                cell.interval = bootstrap_interval(
                    cell.values, own.values, confidence=confidence, resamples=resamples, seed=seed
                )
                cell.p = mann_whitney(cell.values, own.values)
                least.append(least_p(len(cell.values), len(own.values)))
                tested.append(cell)
        for cell, adjusted in zip(tested, holm([cell.p or 0.0 for cell in tested]), strict=True):
            cell.p = adjusted
    if least and max(least) > 0.05:
        notes.append(f"of so few runs the test gives no p below {max(least):.2g}: more seeds tell more")
    return Comparison(groups, columns, better, reference, notes)


def _cell(runs: Sequence[RunFolder], kind: str, name: str) -> Cell:
    cell = Cell()
    for run in runs:
        if run.state != "ended":
            continue
        if kind == "final" and name in run.scores:
            cell.values.append(run.scores[name])
            cell.protocols.add(run.protocol)
        if kind == "best" and (best := run.best(f"val/{name}")) is not None:
            cell.values.append(best[0])
            cell.protocols.add(run.curve_protocol("val"))
    return cell


def _rank(group: Group, columns: Sequence[tuple[str, str]], better: Mapping[str, str]) -> float:
    for column in columns:
        found = group.cells[column].mean
        if found is not None:
            return -found if better[column[1]] == "higher" else found
    return float("inf")


def _baseline(groups: Sequence[Group], asked: str) -> Group:
    path = Path(asked).expanduser().resolve()
    for group in groups:
        if any(run.path.resolve() == path for run in group.runs):
            return group
    what = "not among the runs that are compared" if holds_a_run(path) else "no run's folder"
    raise UserError(f"baseline={asked} is {what}: name a folder of {groups[0].name!r} or of another group")


def _notes(
    runs: Sequence[RunFolder], groups: Sequence[Group], columns: Sequence[tuple[str, str]]
) -> list[str]:
    """What keeps figures from being compared."""
    notes = []
    stamps = {run.protocol: run.stamp for run in runs if run.protocol and run.state == "ended"}
    for kind in KINDS:
        found = {p for group in groups for c in columns if c[0] == kind for p in group.cells[c].protocols}
        if len(found) < 2:
            continue
        names = ", ".join(sorted(str(protocol) for protocol in found))
        text = f"{kind} figures of {len(found)} protocols ({names}) are not compared with one another"
        if kind == "final" and len(stamps) == 2:
            text += f"; they differ in {'; '.join(differences(*stamps.values()))}"
        notes.append(text)
    gone = [run for run in runs if run.state != "ended"]
    if gone:
        notes.append(
            f"left out, as they have not ended: {', '.join(f'{run.name} ({run.state})' for run in gone)}"
        )
    return notes


def _value(cell: Cell) -> str:
    if len(cell.protocols) > 1:
        return f"{len(cell.protocols)} protocols"
    if cell.mean is None:
        return ""
    spread = f" ± {stdev(cell.values):.2g}" if len(cell.values) > 1 else ""
    return f"{cell.mean:.4g}{spread}"


def _against(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    interval = f" [{cell.interval[0]:+.3g}, {cell.interval[1]:+.3g}]" if cell.interval else ""
    return f"{cell.difference:+.3g}{interval}"


def _heading(column: tuple[str, str], better: Mapping[str, str]) -> str:
    kind, name = column
    return f"{kind} {name} {ARROWS[better[name]]}".strip()


def _rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, of what every format but CSV shows."""
    tested = {c: any(group.cells[c].p is not None for group in comparison.groups) for c in comparison.columns}
    headings = ["group", "runs"]
    for column in comparison.columns:
        headings += [_heading(column, comparison.better), "difference", *(["p"] if tested[column] else [])]
    rows = []
    for group in comparison.groups:
        row = [group.name, group.states]
        for column in comparison.columns:
            cell = group.cells[column]
            p = ["" if cell.p is None else f"{cell.p:.2g}"] if tested[column] else []
            same = group is comparison.baseline and cell.values
            row += [_value(cell), "baseline" if same else _against(cell), *p]
        rows.append(row)
    return headings, rows


_LEGEND = (
    "Mean ± standard deviation over seeds; difference of the means to the baseline's with its bootstrap interval; p of "
    "Mann & Whitney's test, adjusted for several groups (Holm)."
)


def for_terminal(comparison: Comparison) -> str:
    """A table in which a group's settings stand under one another, as far as the terminal is wide enough for that."""
    headings, rows = _rows(comparison)
    columns = shutil.get_terminal_size((160, 0)).columns
    lines = [[row[0].replace(", ", ",\n"), *(cell.replace(" [", "\n[") for cell in row[1:])] for row in rows]
    widths = [
        max(len(part) for cell in (heading, *cells) for part in cell.split("\n"))
        for heading, *cells in zip(headings, *lines, strict=True)
    ]
    room = columns - sum(width + 3 for width in widths[1:]) - 4
    shown = Table()
    for place, heading in enumerate(headings):
        least = min(widths[0], room) if place == 0 and room > 12 else None
        shown.add_column(heading, justify="left" if place < 2 else "right", overflow="fold", min_width=least)
    for line in lines:
        shown.add_row(*line)
    file = io.StringIO()
    Console(file=file, width=columns, highlight=False, markup=False).print(shown)
    return f"{file.getvalue()}{_LEGEND}\n"


def as_markdown(comparison: Comparison) -> str:
    headings, rows = _rows(comparison)
    lines = [headings, ["---"] * len(headings), *rows]
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + f"\n\n{_LEGEND}\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
}
_TEX |= {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", **{c: f"\\{c}" for c in "&%$#_{}"}}


def as_latex(comparison: Comparison) -> str:
    """A tabular for the package booktabs."""
    headings, rows = _rows(comparison)
    lines = [
        " & ".join("".join(_TEX.get(c, c) for c in cell) for cell in line) + r" \\"
        for line in (headings, *rows)
    ]
    rules = [rf"\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*rules, *lines[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A row a group and figure, with every digit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ["group", "kind", "figure", "better", "runs", "mean", "standard_deviation", "lowest", "highest"]
    names += ["protocol", "difference", "interval_low", "interval_high", "p", "values"]
    writer.writerow(names)
    for group in comparison.groups:
        for column in comparison.columns:
            writer.writerow(_record(group, column, comparison))
    return file.getvalue()


def _record(group: Group, column: tuple[str, str], comparison: Comparison) -> list[Any]:
    kind, name = column
    cell = group.cells[column]
    spread = stdev(cell.values) if cell.mean is not None and len(cell.values) > 1 else ""
    ends = [min(cell.values), max(cell.values)] if cell.values else ["", ""]
    facts = [cell.mean, spread, *ends, " ".join(sorted(map(str, cell.protocols))), cell.difference]
    facts += [*(cell.interval or ("", "")), cell.p, " ".join(map(str, cell.values))]
    return [
        group.name,
        kind,
        name,
        comparison.better[name],
        len(group.runs),
        *("" if f is None else f for f in facts),
    ]
