"""Seconds until the page of `ganforge report` can be used in headless Chromium, and its size: 200 runs of 1,000 points.

python bench/report.py [--runs 200] [--points 1000] [--grids 2] [--times 5]

The runs are folders as training leaves them: a whole configuration, figures and losses at every point, sample grids.
Each time is of a browser that has just been started. `ready` is when the leaderboard can be used, `drawn` when the
first chart, with every run's curve, is there too.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from ganforge.commands import resolvers, schema
from ganforge.commands.configuration import composing, plain
from ganforge.commands.report import link_from
from ganforge.report.data import report_data
from ganforge.report.page import page
from ganforge.report.pictures import Embedded
from header import header

BAR_SECONDS = 3.0
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
FIGURES = (
    "train/discriminator/adversarial",
    "train/generator/adversarial",
    "train/images_per_second",
    "val/fid",
)


def write_runs(top: Path, number: int, points: int, grids: int) -> None:
    schema.register()
    resolvers.register()
    with composing() as compose:
        config = plain(compose("train", ["logger=csv"]))
    numbers = random.Random(0)
    for i in range(number):
        folder = top / str(i)
        (folder / "samples").mkdir(parents=True)
        own = copy.deepcopy(config)
        own["seed"] = i % 3
        own["optimizer"]["generator"]["lr"] = rate = 10 ** numbers.uniform(-5, -2)
        (folder / "config.yaml").write_text(yaml.safe_dump(own))
        (folder / "overrides.yaml").write_text(yaml.safe_dump([f"optimizer.generator.lr={rate}"]))
        level = 2 + abs(math.log10(rate) + 3.5) * 5
        rows = [f"images_seen,kimg,{','.join(FIGURES)}"]
        for k in range(1, points + 1):
            fid = level + 90 * math.exp(-6 * k / points) + numbers.random()
            values = (
                1.2 + 0.2 * numbers.random(),
                0.8 + 0.2 * numbers.random(),
                3000 + 500 * numbers.random(),
                fid,
            )
            rows.append(f"{100 * k},{k / 10:g},{','.join(f'{value:.6g}' for value in values)}")
        (folder / "metrics.csv").write_text("".join(f"{row}\r\n" for row in rows))
        scores = {"scores": {"fid": level}, "made_by": {"protocol": "00000000"}, "better": {"fid": "lower"}}
        (folder / "scores.json").write_text(json.dumps({**scores, "monitor": "fid"}))
        end = {"state": "ended", "reason": ""}
        (folder / "run.json").write_text(json.dumps({"starts": [{"time": "", "command": [], "end": end}]}))
        for k in range(grids):
            name = f"{k * points / 10 / max(grids - 1, 1):010.3f}_kimg.png"
            Image.effect_noise((342, 342), 50 + k).save(folder / "samples" / name)


def opened(browser_type: Any, chromium: str, address: str) -> tuple[float, float, float]:
    """Seconds until the page is ready and until its first chart is drawn, and what the processor worked for it."""
    browser = browser_type.launch(executable_path=chromium, args=list(FLAGS))
    try:
        shown = browser.new_page(viewport={"width": 1280, "height": 900})
        session = shown.context.new_cdp_session(shown)
        session.send("Performance.enable")
        start = time.perf_counter()
        shown.goto(address, wait_until="commit")
        shown.wait_for_selector("html[data-ready]", state="attached")
        ready = time.perf_counter() - start
        shown.wait_for_selector("#panels .chart .scatterlayer .trace", state="attached")
        drawn = time.perf_counter() - start
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return ready, drawn, metrics["ThreadTime"]
    finally:
        browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--grids", type=int, default=2, help="sample grids of a run")
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("needs playwright (pip install 'ganforge[dev]') and Chromium (apt-get install chromium)")
        return 0
    print(f"{header(seed=0)}\n")
    with tempfile.TemporaryDirectory() as folder:
        top, out = Path(folder) / "outputs" / "many", Path(folder) / "report.html"
        write_runs(top, arguments.runs, arguments.points, arguments.grids)
        start = time.perf_counter()
        data = report_data([top], Embedded(arguments.runs), link_from(out.parent))
        out.write_text(page(data, "many"), encoding="utf-8")
        made = time.perf_counter() - start
        with sync_playwright() as started:
            times = [opened(started.chromium, chromium, out.as_uri()) for _ in range(arguments.times)]
        size = out.stat().st_size / 1e6
    ready, drawn, worked = (statistics.median(column) for column in zip(*times, strict=True))
    headings = "runs | points | page made in s | MB | ready after s | first chart drawn after s | of the processor, s"
    print(f"| {headings} |\n{'|---' * 7}|")
    cells = (
        f"{arguments.runs} | {arguments.points:,} | {made:.1f} | {size:.1f}",
        f"{ready:.2f} | {drawn:.2f} | {worked:.2f}",
    )
    print(f"| {' | '.join(cells)} |")
    held = "is held" if drawn < BAR_SECONDS else "is not held"
    print(
        f"\nMedians of {arguments.times} starts of the browser; the bar of {BAR_SECONDS:g} s {held}. Where other work "
        "has the processor too, the last column says what the page itself takes."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
