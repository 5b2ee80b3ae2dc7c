"""Figures and tables of the documentation, made from runs' folders: a metric's curve, sample grids, final scores.

    python docs/make_figures.py curve RUN_FOLDER... --metric val/fid --out docs/figures/x.png
    python docs/make_figures.py strip RUN_FOLDER --out docs/figures/x.png [--count 5]
    python docs/make_figures.py picture RUN_FOLDER [--kind reconstructions] --out docs/figures/x.png
    python docs/make_figures.py table RUN_FOLDER... [--metric fid ...]

Needs matplotlib: pip install 'ganforge[docs]'.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from ganforge.evaluation.stamp import differences


@dataclass(frozen=True)
class RunFolder:
    """What a run's folder says of itself."""

    path: Path
    name: str
    seed: int

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        config_file = path / "config.yaml"
        if not config_file.is_file():
            raise ValueError(f"{path} is not a run's folder: it holds no config.yaml")
        config = yaml.safe_load(config_file.read_text())
        return cls(path, config["name"], config["seed"])

    def curve(self, metric: str) -> tuple[list[float], list[float]]:
        """kimg and values of the rows of metrics.csv in which the metric was measured."""
        with (self.path / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(metric)]
        return [float(row["kimg"]) for row in rows], [float(row[metric]) for row in rows]

    def final_scores(self) -> dict[str, float]:
        """Of the last evaluation: from scores.json, or from the last row of metrics.csv that has any."""
        scores_file = self.path / "scores.json"
        if scores_file.is_file():
            scores: dict[str, float] = json.loads(scores_file.read_text())["scores"]
            return scores
        with (self.path / "metrics.csv").open(newline="") as file:
            rows = [
                {k: v for k, v in row.items() if k.startswith("val/") and v} for row in csv.DictReader(file)
            ]
        last: dict[str, str] = next((row for row in reversed(rows) if row), {})
        return {name.removeprefix("val/"): float(value) for name, value in last.items()}

    def stamp(self) -> dict[str, Any]:
        """What made the final scores; {} where nothing says so."""
        scores_file = self.path / "scores.json"
        return json.loads(scores_file.read_text())["made_by"] if scores_file.is_file() else {}

    def grids(self) -> list[tuple[float, Path]]:
        """The sample grids with their kimg, in order."""
        files = sorted((self.path / "samples").glob("*_kimg.png"))
        return [(float(file.stem.removesuffix("_kimg")), file) for file in files]


def draw_curve(runs: Sequence[RunFolder], metric: str, out: Path) -> None:
    """The metric against kimg, a line a run; for a FID also that between two halves of the real data, dashed."""
    figure, (axes,) = _sheet(6.4, 3.6)
    for run in runs:
        kimg, values = run.curve(metric)
        if not values:
            raise ValueError(f"{run.path}/metrics.csv holds no {metric}")
        label = f"{run.name}, seed {run.seed}"
        axes.plot(kimg, values, marker="o", markersize=3, linewidth=1.4, label=label)
    if metric.endswith("/fid"):
        levels = {values[-1] for run in runs if (values := run.curve(f"{metric}_real_halves")[1])}
        for level in sorted(levels):
            axes.axhline(
                level,
                linestyle="--",
                color="0.4",
                linewidth=1,
                label=f"two halves of the real data: {level:.2g}",
            )
        axes.set_yscale("log", subs=(2, 5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.set_xlabel("thousands of real images seen (kimg)")
    axes.set_ylabel(metric.removeprefix("val/").replace("_", " ").replace("fid", "FID"))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    if reasons := incomparable(runs):
        axes.set_title(f"not comparable: {reasons[0]}", fontsize=8, color="tab:red")
    _save(figure, out)


def draw_strip(run: RunFolder, count: int, out: Path) -> None:
    """The first and the last sample grid and some between them, side by side; gaps grow, as change slows down."""
    grids = run.grids()
    if not grids:
        raise ValueError(f"{run.path}/samples holds no grids")
    from matplotlib.image import imread

    chosen = spread(len(grids), count)
    height, width = imread(grids[0][1]).shape[:2]
    figure, axes = _sheet(2.4 * len(chosen), 2.4 * height / width + 0.3, columns=len(chosen))
    for position, index in zip(axes, chosen, strict=True):
        kimg, file = grids[index]
        picture = imread(file)
        position.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        position.set_title(f"{kimg:.0f} kimg", fontsize=10)
        position.axis("off")
    _save(figure, out)


def copy_picture(run: RunFolder, kind: str | None, out: Path) -> None:
    """The last sample grid, or the last picture of another kind that the run's game draws beside it, as it is."""
    files = sorted((run.path / "samples").glob(f"*_kimg_{kind}.png" if kind else "*_kimg.png"))
    if not files:
        raise ValueError(f"{run.path}/samples holds no {kind or 'grids'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(files[-1], out)
    print(out)


def spread(length: int, count: int) -> list[int]:
    """Up to `count` different indices of 0 to length - 1, both ends among them, spaced quadratically."""
    if count < 2:
        return [length - 1]
    return sorted({round((length - 1) * (i / (count - 1)) ** 2) for i in range(count)})


def table(runs: Sequence[RunFolder], metrics: Sequence[str]) -> str:
    """A Markdown table of final scores: a row an experiment, mean ± standard deviation over its seeds."""
    groups: dict[str, list[RunFolder]] = {}
    for run in sorted(runs, key=lambda run: (run.name, run.seed)):
        groups.setdefault(run.name, []).append(run)
    scores = {run: run.final_scores() for run in runs}
    names = list(metrics) or list(dict.fromkeys(name for values in scores.values() for name in values))
    lines = [f"| experiment | seeds | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for experiment, members in groups.items():
        cells = [_cell([scores[run][name] for run in members if name in scores[run]]) for name in names]
        seeds = ", ".join(str(run.seed) for run in members)
        lines.append(f"| {experiment} | {seeds} | {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"\nNot comparable: {reason}" for reason in incomparable(runs))])


def incomparable(runs: Sequence[RunFolder]) -> list[str]:
    """In what the protocols of the runs' scores differ, in words; [] where they compare."""
    stamps = [(run.path, run.stamp()) for run in runs]
    return [
        f"{stamps[0][0]} and {path} differ in {difference}"
        for path, stamp in stamps[1:]
        for difference in differences(stamps[0][1], stamp)
    ]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{mean(values):.3g} ± {stdev(values):.2g}"


def _sheet(width: float, height: float, columns: int = 1) -> tuple[Any, Sequence[Any]]:
    """A figure of that size in inches and its axes, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False)
    return figure, axes[0]


def _save(figure: Any, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    curve_parser = commands.add_parser("curve", help="a metric against kimg")
    curve_parser.add_argument("runs", nargs="+", type=Path)
    curve_parser.add_argument("--metric", default="val/fid")
    curve_parser.add_argument("--out", type=Path, required=True)
    strip_parser = commands.add_parser("strip", help="sample grids side by side")
    strip_parser.add_argument("run", type=Path)
    strip_parser.add_argument("--count", type=int, default=5)
    strip_parser.add_argument("--out", type=Path, required=True)
    picture_parser = commands.add_parser("picture", help="the last picture of a kind, as the run drew it")
    picture_parser.add_argument("run", type=Path)
    picture_parser.add_argument(
        "--kind", help="what its file's name ends with, such as reconstructions; the grid"
    )
    picture_parser.add_argument("--out", type=Path, required=True)
    table_parser = commands.add_parser("table", help="final scores as Markdown")
    table_parser.add_argument("runs", nargs="+", type=Path)
    table_parser.add_argument("--metric", nargs="*", default=[])
    arguments = parser.parse_args(words)
    try:
        if arguments.command == "curve":
            draw_curve([RunFolder.read(path) for path in arguments.runs], arguments.metric, arguments.out)
        elif arguments.command == "strip":
            draw_strip(RunFolder.read(arguments.run), arguments.count, arguments.out)
        elif arguments.command == "picture":
            copy_picture(RunFolder.read(arguments.run), arguments.kind, arguments.out)
        else:
            print(table([RunFolder.read(path) for path in arguments.runs], arguments.metric))
    except (ValueError, OSError) as error:
        sys.exit(f"make_figures: {error}")


if __name__ == "__main__":
    main()
