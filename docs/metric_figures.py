"""Figures and tables of docs/metrics.md: what the metrics say of real digits, and of digits spoilt on purpose.

    python docs/metric_figures.py [--out docs/figures]

Real images stand in for a generator's, so what a figure ought to say is known. From scikit-learn's digits and the
classifier that the package ships: nothing is downloaded. Takes about two minutes of one thread.
Needs matplotlib: pip install 'ganforge[docs]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ganforge.evaluation.cache import Cache
from ganforge.evaluation.digits import Digits
from ganforge.evaluation.metrics.class_consistency import ClassConsistency
from ganforge.evaluation.metrics.classification_accuracy import ClassificationAccuracy
from ganforge.evaluation.metrics.density_coverage import DensityCoverage
from ganforge.evaluation.metrics.diversity import MSSSIMDiversity
from ganforge.evaluation.metrics.fid import FID
from ganforge.evaluation.metrics.inception_score import InceptionScore
from ganforge.evaluation.metrics.intra_class_fid import IntraClassFID
from ganforge.evaluation.metrics.kid import KID
from ganforge.evaluation.metrics.memorisation import Memorisation
from ganforge.evaluation.metrics.metric import Metric
from ganforge.evaluation.metrics.mind import MIND
from ganforge.evaluation.metrics.pixel_distance import PixelDistance
from ganforge.evaluation.metrics.precision_recall import PrecisionRecall
from ganforge.evaluation.sample import Sample
from ganforge.evaluation.train_digits_classifier import digits_images
from ganforge.images import to_float, to_uint8

# Okabe and Ito's palette, which the colour-blind can tell apart; dashes say the same without colour.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"

NUMBERS = (16, 32, 64, 128, 256, 512, 898)
SPLITS, SEEDS = 40, 5
STANDARD: tuple[Metric, ...] = (
    FID(),
    KID(),
    MIND(projections=300),
    InceptionScore(),
    PrecisionRecall(),
    DensityCoverage(),
    ClassConsistency(),
)

Random = torch.Generator
Spoil = Callable[["Digit", float, Random], "Digit"]


@dataclass(frozen=True)
class Digit:
    """Some digits: images uint8 (N, 1, 8, 8) and labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> Digit:
        return Digit(self.images[rows], self.labels[rows])


class Eye:
    """The extractor."""

    def __init__(self) -> None:
        self._extractor = Digits()
        self._extractor.prepare(None, "cpu", Cache(None))

    @torch.no_grad()
    def __call__(self, digits: Digit, held_out: Sample | None = None) -> Sample:
        features, logits = self._extractor.extract(digits.images)
        return Sample(
            count=len(digits),
            features=features,
            logits=logits,
            labels=digits.labels,
            classifies=True,
            images=digits.images.__getitem__,
            num_images=len(digits),
            held_out=held_out,
        )


def figures(metrics: Sequence[Metric], generated: Sample, real: Sample) -> dict[str, float]:
    values: dict[str, float] = {}
    for metric in metrics:
        if metric.lacks(generated, real) is None:
            values |= metric(generated, real)
    return values


def halves(digits: Digit, seed: int) -> tuple[Digit, Digit]:
    """Two random halves, of 898 and 899 digits."""
    order = torch.randperm(len(digits), generator=Random().manual_seed(seed))
    return digits.take(order[: len(digits) // 2]), digits.take(order[len(digits) // 2 :])


# What generators do wrong ---------------------------------------------------------------------------------------------


def noise(digits: Digit, level: float, random: Random) -> Digit:
    """Normal noise; level is its standard deviation as a share of the range from black to white."""
    x = to_float(digits.images)
    return Digit(to_uint8(x + 2 * level * torch.randn(x.shape, generator=random)), digits.labels)


def blur(digits: Digit, level: float, random: Random) -> Digit:
    """Gaussian blur; level is its standard deviation in pixels."""
    if level == 0:
        return digits
    blurred = gaussian_blur(to_float(digits.images), [7, 7], [level, level])
    return Digit(to_uint8(blurred), digits.labels)


def fewer_classes(digits: Digit, level: float, random: Random) -> Digit:
    """The digits of `level` classes alone, drawn at random: so many fewer of them."""
    classes = torch.randperm(10, generator=random)[: int(level)]
    return digits.take(torch.isin(digits.labels, classes).nonzero()[:, 0])


def fewer_pictures(digits: Digit, level: float, random: Random) -> Digit:
    """Every class as often as before, but with `level` different pictures of it alone, again and again."""
    rows = torch.arange(len(digits))
    for c in range(10):
        members = (digits.labels == c).nonzero()[:, 0]
        kept = members[torch.randperm(len(members), generator=random)[: int(level)]]
        rows[members] = kept.repeat(-(-len(members) // len(kept)))[: len(members)]
    return digits.take(rows)


def wrong_labels(digits: Digit, level: float, random: Random) -> Digit:
    """The pictures as they are, under each other's labels."""
    return Digit(digits.images, digits.labels[torch.randperm(len(digits), generator=random)])


@dataclass(frozen=True)
class Corruption:
    """A row of small multiples.

    Attributes:
        name: of the row.
        unit: of the levels.
        spoil: digits, level -> spoilt digits.
        levels: from none to strong.
        logarithmic: whether levels are spaced by factors.
    """

    name: str
    unit: str
    spoil: Spoil
    levels: tuple[float, ...]
    logarithmic: bool = False


CORRUPTIONS = (
    Corruption("Noise", "standard deviation, share of range", noise, (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)),
    Corruption("Blur", "standard deviation, pixels", blur, (0, 0.3, 0.4, 0.5, 0.7, 1, 1.5)),
    Corruption("Fewer classes", "classes left", fewer_classes, (10, 9, 8, 6, 4, 2, 1)),
    Corruption(
        "Fewer pictures", "different pictures a class", fewer_pictures, (100, 50, 20, 10, 5, 2, 1), True
    ),
)

Curves = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
"""Figure -> values (levels, repetitions)."""


def curves(rows: Iterator[tuple[int, int, dict[str, float]]], levels: int, repetitions: int) -> Curves:
    """The values of (level, repetition, figures) as arrays."""
    result: Curves = {}
    for level, repetition, values in rows:
        for name, value in values.items():
            result.setdefault(name, np.full((levels, repetitions), np.nan))[level, repetition] = value
    return result


def over_numbers(eye: Eye, digits: Digit) -> Curves:
    """Real digits against other real digits: n of one half against all 899 of the other."""

    def rows() -> Iterator[tuple[int, int, dict[str, float]]]:
        metrics = (FID(), KID(subsets=10), MIND(projections=300), PrecisionRecall(), DensityCoverage())
        for split in range(SPLITS):
            one, other = halves(digits, split)
            real = eye(other)
            for i, number in enumerate(NUMBERS):
                yield i, split, figures(metrics, eye(one.take(torch.arange(number))), real)

    return curves(rows(), len(NUMBERS), SPLITS)


def over_levels(eye: Eye, digits: Digit, corruption: Corruption) -> Curves:
    """Spoilt digits of one half against the other half as it is."""

    def rows() -> Iterator[tuple[int, int, dict[str, float]]]:
        for seed in range(SEEDS):
            one, other = halves(digits, seed)
            real = eye(other)
            for i, level in enumerate(corruption.levels):
                spoilt = corruption.spoil(one, level, Random().manual_seed(seed))
                yield i, seed, figures(STANDARD, eye(spoilt), real)

    return curves(rows(), len(corruption.levels), SEEDS)


def cases(eye: Eye, digits: Digit) -> dict[str, dict[str, float]]:
    """Every figure that needs no model, for a third of the digits, spoilt in one way or another.

    Another third is the real side, the last one held out.
    """
    metrics = (
        *STANDARD,
        IntraClassFID(fewest_per_class=40),
        ClassificationAccuracy(steps=200),
        MSSSIMDiversity(),
        PixelDistance(),
        Memorisation(),
    )
    order = torch.randperm(len(digits), generator=Random().manual_seed(0))
    training, unseen, other = (digits.take(rows) for rows in torch.split(order, len(digits) // 3))
    real = eye(training, held_out=eye(unseen))
    generated = {
        "nothing: other real digits": other,
        "copies of the real side": training,
        "noise, 0.1": noise(other, 0.1, Random().manual_seed(0)),
        "blur, 0.5 pixels": blur(other, 0.5, Random()),
        "five classes": fewer_classes(other, 5, Random().manual_seed(0)),
        "five pictures a class": fewer_pictures(other, 5, Random().manual_seed(0)),
        "labels ignored": wrong_labels(other, 0, Random().manual_seed(0)),
    }
    return {name: figures(metrics, eye(spoilt), real) for name, spoilt in generated.items()}


def table(values: dict[str, dict[str, float]]) -> str:
    """Markdown: a row a figure, a column a case; without the figures that only real images have."""
    names = [
        name
        for name in next(iter(values.values()))
        if not name.endswith(("_std", "_real", "_real_halves")) and name != "f_score"
    ]
    lines = [f"| | {' | '.join(values)} |", f"|---|{'---|' * len(values)}"]
    lines += [
        f"| `{name}` | {' | '.join(cell(name, each[name]) for each in values.values())} |" for name in names
    ]
    return "\n".join(lines)


def cell(name: str, value: float) -> str:
    if abs(value) < 1e-6:
        return "0"
    return f"{value:.3f}" if name.startswith("kid") else f"{value:.2f}" if value < 10 else f"{value:.0f}"


# Drawing --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    figure: str
    label: str
    colour: str
    dashes: str = "-"


@dataclass(frozen=True)
class Panel:
    """A column of small multiples: lines that share an axis."""

    title: str
    lines: tuple[Line, ...]
    scale: str = "linear"
    limits: tuple[float, float] | None = None


FID_PANEL = Panel("FID", (Line("fid", "FID", BLUE),), "log")
KID_PANEL = Panel("KID", (Line("kid_mean", "KID", BLUE),))
MIND_PANEL = Panel("MIND", (Line("mind", "MIND", BLUE),), "log")
PRECISION, DENSITY = Line("precision", "precision", BLUE), Line("density", "density", ORANGE, "--")
RECALL, COVERAGE = Line("recall", "recall", BLUE), Line("coverage", "coverage", ORANGE, "--")
SHARES = (0, 1.18)

OF_NUMBERS = (
    FID_PANEL,
    MIND_PANEL,
    KID_PANEL,
    Panel(
        "Shares",
        (PRECISION, Line("recall", "recall", ORANGE, "--"), Line("coverage", "coverage", GREEN, "-.")),
        limits=SHARES,
    ),
)
DISTANCES = (
    Panel("FID", FID_PANEL.lines, "log", (0.3, 150)),
    Panel("MIND", MIND_PANEL.lines, "log", (0.7, 400)),
    Panel("KID", KID_PANEL.lines, "symlog", (-0.005, 10)),
)
QUALITY = (
    Panel("Inception Score", (Line("inception_score", "IS", BLUE),), limits=(0, 8)),
    Panel("Class consistency", (Line("class_consistency", "", BLUE),), limits=SHARES),
    Panel("Precision, density", (PRECISION, DENSITY), limits=SHARES),
    Panel("Recall, coverage", (RECALL, COVERAGE), limits=SHARES),
)


def draw_numbers(values: Curves, out: Path) -> None:
    figure, grid = sheet(1, len(OF_NUMBERS), 10, 2.9)
    for axes, panel in zip(grid[0], OF_NUMBERS, strict=True):
        draw(axes, panel, values, NUMBERS, band=True)
        axes.set_title(panel.title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(NUMBERS[::2], [str(number) for number in NUMBERS[::2]])
        axes.minorticks_off()
        axes.set_xlabel("generated images")
    grid[0][-1].legend(frameon=False, fontsize=8)
    save(figure, out)


def draw_levels(rows: Sequence[tuple[Corruption, Curves]], panels: Sequence[Panel], out: Path) -> None:
    figure, grid = sheet(len(rows), len(panels), 2.5 * len(panels) + 0.5, 2.0 * len(rows))
    for row, (corruption, values) in zip(grid, rows, strict=True):
        places = range(len(corruption.levels))
        for axes, panel in zip(row, panels, strict=True):
            draw(axes, panel, values, places, band=False)
            axes.set_xticks(places, [f"{level:g}" for level in corruption.levels])
            axes.set_xlabel(corruption.unit, fontsize=8)
        row[0].set_ylabel(corruption.name, fontsize=11, fontweight="bold")
    for axes, panel in zip(grid[0], panels, strict=True):
        axes.set_title(panel.title)
        if len(panel.lines) > 1:
            axes.legend(frameon=False, fontsize=8)
    save(figure, out)


def draw(axes: Any, panel: Panel, values: Curves, x: Sequence[float], *, band: bool) -> None:
    """The panel's lines: means over repetitions; `band` shades one standard deviation on either side."""
    for line in panel.lines:
        mean, std = values[line.figure].mean(axis=1), values[line.figure].std(axis=1)
        axes.plot(x, mean, line.dashes, color=line.colour, marker="o", markersize=3, label=line.label)
        if len(panel.lines) == 1 and not band:
            axes.axhline(mean[0], linestyle=":", color="0.5", linewidth=1)
        if band:
            axes.fill_between(x, mean - std, mean + std, color=line.colour, alpha=0.15, linewidth=0)
    if panel.scale == "symlog":
        axes.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        axes.set_yticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
    elif panel.scale == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.axhline(0, color="0.6", linewidth=0.8)
    if panel.limits:
        axes.set_ylim(*panel.limits)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def sheet(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of that size in inches and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 11, "lines.linewidth": 1.5})
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)


def save(figure: Any, path: Path) -> None:
    """A PNG of a palette: a third of the size."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


def show(title: str, levels: Sequence[float], values: Curves) -> None:
    print(f"\n{title}: {', '.join(f'{level:g}' for level in levels)}")
    for name, each in values.items():
        print(f"  {name:<20}" + "".join(f"{value:>10.4g}" for value in each.mean(axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="folder of the figures")
    out = parser.parse_args().out
    eye, digits = Eye(), Digit(*digits_images())
    numbers = over_numbers(eye, digits)
    show("generated images", NUMBERS, numbers)
    draw_numbers(numbers, out / "metrics_numbers.png")
    rows = []
    for corruption in CORRUPTIONS:
        values = over_levels(eye, digits, corruption)
        show(f"{corruption.name} ({corruption.unit})", corruption.levels, values)
        rows.append((corruption, values))
    draw_levels(rows, DISTANCES, out / "metrics_distances.png")
    draw_levels(rows, QUALITY, out / "metrics_quality.png")
    print(f"\n{table(cases(eye, digits))}")


if __name__ == "__main__":
    main()
