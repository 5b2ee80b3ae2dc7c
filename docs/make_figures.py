"""Figures and tables of the documentation, made from runs' folders: a metric's curve, sample grids, final scores.

    python docs/make_figures.py curve RUN_FOLDER... --metric val/fid --out docs/figures/x.png
    python docs/make_figures.py strip RUN_FOLDER --out docs/figures/x.png [--count 5]
    python docs/make_figures.py picture RUN_FOLDER [--kind reconstructions] --out docs/figures/x.png
    python docs/make_figures.py table RUN_FOLDER... [--metric fid ...]

Needs matplotlib: pip install 'ganforge[docs]'.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ganforge.evaluation.stamp import differences
from ganforge.runs import RunFolder, holds_a_run


def read(path: Path) -> RunFolder:
    if not holds_a_run(path):
        raise ValueError(f"{path} is not a run's folder: it holds no config.yaml")
    return RunFolder(path)


def draw_curve(runs: Sequence[RunFolder], metric: str, out: Path) -> None:
    """The metric against kimg, a line a run; for a FID also that between two halves of the real data, dashed."""
    figure, (axes,) = _sheet(6.4, 3.6)
    for run in runs:
        if metric not in run.curves:
            raise ValueError(f"{run.path} holds no {metric}")
        curve = run.curves[metric]
        label = f"{run.config['name']}, seed {run.config['seed']}"
        axes.plot(curve.kimg, curve.values, marker="o", markersize=3, linewidth=1.4, label=label)
    if metric.endswith("/fid"):
        halves = f"{metric}_real_halves"
        levels = {run.curves[halves].values[-1] for run in runs if halves in run.curves}
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
    grids = run.grids.get("samples", [])
    if not grids:
        raise ValueError(f"{run.path}/samples holds no grids")
    from matplotlib.image import imread

    chosen = spread(len(grids), count)
    height, width = imread(grids[0].path).shape[:2]
    figure, axes = _sheet(2.4 * len(chosen), 2.4 * height / width + 0.3, columns=len(chosen))
    for position, index in zip(axes, chosen, strict=True):
        picture = imread(grids[index].path)
        position.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        position.set_title(f"{grids[index].kimg:.0f} kimg", fontsize=10)
        position.axis("off")
    _save(figure, out)


def copy_picture(run: RunFolder, kind: str | None, out: Path) -> None:
    """The last sample grid, or the last picture of another kind that the run's game draws beside it, as it is."""
    grids = run.grids.get(kind or "samples", [])
    if not grids:
        raise ValueError(f"{run.path}/samples holds no {kind or 'grids'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(grids[-1].path, out)
    print(out)


def spread(length: int, count: int) -> list[int]:
    """Up to `count` different indices of 0 to length - 1, both ends among them, spaced quadratically."""
    if count < 2:
        return [length - 1]
    return sorted({round((length - 1) * (i / (count - 1)) ** 2) for i in range(count)})


def table(runs: Sequence[RunFolder], metrics: Sequence[str]) -> str:
    """A Markdown table of final scores: a row an experiment, mean ± standard deviation over its seeds."""
    groups: dict[str, list[RunFolder]] = {}
    for run in sorted(runs, key=lambda run: (run.config["name"], run.config["seed"])):
        groups.setdefault(run.config["name"], []).append(run)
    scores = {run: run.scores for run in runs}
    names = list(metrics) or list(dict.fromkeys(name for values in scores.values() for name in values))
    lines = [f"| experiment | seeds | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for experiment, members in groups.items():
        cells = [_cell([scores[run][name] for run in members if name in scores[run]]) for name in names]
        seeds = ", ".join(str(run.config["seed"]) for run in members)
        lines.append(f"| {experiment} | {seeds} | {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"\nNot comparable: {reason}" for reason in incomparable(runs))])


def incomparable(runs: Sequence[RunFolder]) -> list[str]:
    """In what the protocols of the runs' scores differ, in words; [] where they compare."""
    stamps = [(run.path, run.stamp) for run in runs]
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
            draw_curve([read(path) for path in arguments.runs], arguments.metric, arguments.out)
        elif arguments.command == "strip":
            draw_strip(read(arguments.run), arguments.count, arguments.out)
        elif arguments.command == "picture":
            copy_picture(read(arguments.run), arguments.kind, arguments.out)
        else:
            print(table([read(path) for path in arguments.runs], arguments.metric))
    except (ValueError, OSError) as error:
        sys.exit(f"make_figures: {error}")


if __name__ == "__main__":
    main()
