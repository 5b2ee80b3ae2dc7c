"""`ganforge compare`: the figures of groups of seeds against closed forms, and what must not be compared."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from scipy import stats

FIDS = {"hinge.Hinge": [10.0, 11.5, 12.0, 9.0], "wasserstein.Wasserstein": [20.0, 22.0, 21.0, 25.0]}
FIDS["minimax.Minimax"] = [10.5, 12.5, 9.5, 11.0]


@pytest.fixture
def outputs(tmp_path: Path, write_run: Any) -> Path:
    for loss, values in FIDS.items():
        for seed, value in enumerate(values):
            write_run(
                tmp_path / "outputs" / f"{loss}{seed}",
                seed=seed,
                loss=loss,
                fid=(50.0, value - 1, value),
                figures={"recall": value / 100},
            )
    return tmp_path / "outputs"


def records(text: str) -> dict[tuple[str, str], dict[str, str]]:
    return {
        (row["group"], f"{row['kind']} {row['figure']}"): row for row in csv.DictReader(io.StringIO(text))
    }


def test_figures_of_groups(outputs: Path, ganforge: Any) -> None:
    outcome = ganforge("compare", "outputs", "format=csv")
    assert outcome.code == 0, outcome.err
    rows = records(outcome.out)
    assert [group for group, kind in rows if kind == "final fid"] == [
        "loss=hinge",
        "loss=minimax",
        "loss=wasserstein",
    ]
    for loss, values in FIDS.items():
        row = rows[f"loss={loss.partition('.')[0]}", "final fid"]
        assert float(row["mean"]) == pytest.approx(mean(values))
        assert float(row["standard_deviation"]) == pytest.approx(stdev(values))
        assert float(row["lowest"]) == min(values)
        best = rows[f"loss={loss.partition('.')[0]}", "best fid"]
        assert float(best["mean"]) == pytest.approx(mean(values) - 1)
        assert (row["protocol"], best["protocol"]) == ("aaaa0000", "fewaaaa0000")
    worse = rows["loss=wasserstein", "final fid"]
    assert float(worse["difference"]) == pytest.approx(
        mean(FIDS["wasserstein.Wasserstein"]) - mean(FIDS["hinge.Hinge"])
    )
    assert float(worse["interval_low"]) < float(worse["difference"]) < float(worse["interval_high"])
    others = [FIDS["wasserstein.Wasserstein"], FIDS["minimax.Minimax"]]
    raw = [stats.mannwhitneyu(values, FIDS["hinge.Hinge"]).pvalue for values in others]
    assert float(worse["p"]) == pytest.approx(2 * min(raw)), "Holm's adjustment for two"
    assert rows["loss=hinge", "final fid"]["p"] == ""


def test_the_table_says_it_in_words(outputs: Path, ganforge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = ganforge("compare", "outputs").out
    assert "final fid ↓" in out
    assert "10.62 ± 1.4" in out
    assert "baseline" in out
    assert "4 ended" in out
    assert "+11.4 │" in out, "and its interval below"
    monkeypatch.setenv("COLUMNS", "80")
    assert all(len(line) <= 80 for line in ganforge("compare", "outputs").out.splitlines()[:-1])


def test_another_baseline_and_other_figures(outputs: Path, ganforge: Any) -> None:
    words = ("compare", "outputs", "figures=[recall,fid]", "baseline=outputs/minimax.Minimax2", "format=csv")
    rows = records(ganforge(*words).out)
    assert rows["loss=minimax", "final fid"]["difference"] == ""
    assert float(rows["loss=hinge", "final fid"]["difference"]) == pytest.approx(-0.25)
    assert next(group for group, _ in rows) == "loss=wasserstein", "the higher recall is the better one"
    assert ("loss=hinge", "best recall") not in rows, "there is no curve of it"


def test_two_protocols_are_not_compared(outputs: Path, ganforge: Any, write_run: Any) -> None:
    for seed in range(4):
        write_run(
            outputs / f"other{seed}", seed=seed, loss="ns.NS", fid=(50.0, 1.0, 1.0), protocol="bbbb1111"
        )
    outcome = ganforge("compare", "outputs", "format=csv", "baseline=outputs/hinge.Hinge0")
    assert "final figures of 2 protocols (aaaa0000, bbbb1111) are not compared" in outcome.err
    assert "generated/batch_norm: aaaa0000 and bbbb1111" in outcome.err
    row = records(outcome.out)["loss=ns", "final fid"]
    assert (row["mean"], row["difference"], row["p"]) == ("1.0", "", "")
    # Within a group they are not even averaged.
    write_run(outputs / "hinge.Hinge0", seed=0, fid=(50.0, 9.0, 10.0), protocol="bbbb1111")
    row = records(ganforge("compare", "outputs", "format=csv").out)["loss=hinge", "final fid"]
    assert row["mean"] == ""
    assert "2 protocols" in ganforge("compare", "outputs", "format=markdown").out


def test_runs_that_did_not_end_are_named_and_left_out(outputs: Path, ganforge: Any, write_run: Any) -> None:
    write_run(outputs / "hinge.Hinge0", seed=0, fid=(1.0, 1.0, 1.0), end="failed", failure="loss became nan")
    outcome = ganforge("compare", "outputs", "format=csv")
    assert "left out, as they have not ended: outputs/hinge.Hinge0 (failed)" in outcome.err
    assert float(records(outcome.out)["loss=hinge", "final fid"]["mean"]) == pytest.approx(
        mean([11.5, 12.0, 9.0])
    )


def test_few_seeds_cannot_tell(tmp_path: Path, ganforge: Any, write_run: Any) -> None:
    for seed in range(3):
        for loss in ("hinge.Hinge", "ns.NS"):
            write_run(
                tmp_path / "outputs" / f"{loss}{seed}", seed=seed, loss=loss, fid=(10.0 * len(loss) + seed,)
            )
    outcome = ganforge("compare")
    assert "the test gives no p below 0.1" in outcome.err


def test_markdown_and_latex_escape(outputs: Path, ganforge: Any, write_run: Any, tmp_path: Path) -> None:
    write_run(
        outputs / "odd", loss="hinge.Hinge", fid=(50.0, 50.0, 50.0), settings={"note": "a|b_c & 50% <x>"}
    )
    assert "a\\|b_c & 50% &lt;x>" in ganforge("compare", "outputs", "format=markdown").out
    assert ganforge("compare", "outputs", "format=latex", "out=table.tex").code == 0
    table = (tmp_path / "table.tex").read_text()
    assert r"a|b\_c \& 50\% $<$x$>$" in table
    assert table.count(r"\\") == 5
    assert r"$\pm$" in table


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("format=tex",), ("format=tex", "did you mean 'latex'?")),
        (("figures=[fidd]",), ("no run has 'fidd'", "did you mean 'fid'?")),
        (("baseline=outputs",), ("baseline=outputs is no run's folder",)),
        (("confidence=95",), ("confidence=95 must be between 0 and 1",)),
        (("resamples=0",), ("resamples=0 must be at least 1",)),
    ],
)
def test_mistakes_are_one_message(
    words: tuple[str, ...], parts: tuple[str, ...], outputs: Path, ganforge: Any
) -> None:
    ganforge("compare", "outputs", *words).refuses(*parts)
