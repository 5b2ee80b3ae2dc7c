"""A real browser, and a folder of runs to look at in it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
EVIL = "<script>alert(1)</script>"


class Watched:
    """A page, and everything that should not happen on it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on(
            "dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, address: str) -> Any:
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]")
        return self.page


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def _desktop(browser: Any) -> Watched:
    return Watched(browser.new_context(viewport={"width": 1280, "height": 900}).new_page())


@pytest.fixture
def watched(_desktop: Watched) -> Iterator[Watched]:
    """A page at desktop width, on which nothing may go wrong. It is one page all along: the browser compiles once."""
    _desktop.complaints.clear()
    _desktop.requests.clear()
    yield _desktop
    assert _desktop.complaints == []


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Waits in this process: the page's policy forbids the browser to evaluate strings."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


@pytest.fixture(name="until", scope="session")
def _until() -> Callable[..., None]:
    return until


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, write_run: Any) -> Path:
    """A search of six runs, of which one failed, one was pruned, and one has an evil name and evil settings."""
    top = tmp_path_factory.mktemp("outputs") / "digits" / "search"
    trials = []
    for i in range(6):
        name = f"{EVIL.replace('/', '∕')}" if i == 1 else str(i)
        lr, loss = 10.0 ** -(i + 1), ("hinge.Hinge", "wasserstein.Wasserstein")[i % 2]
        evil = {"comment": f"</script>{EVIL}<img src=x onerror=alert(2)>"} if i == 1 else {"comment": "plain"}
        write_run(
            top / name,
            seed=i % 3,
            lr=lr,
            loss=loss,
            fid=[50.0 / k + i for k in range(1, 9)],
            settings=evil,
            grids=5,
            end="failed" if i == 4 else "ended",
            failure=f"loss became nan {EVIL}" if i == 4 else None,
            protocol="bbbb1111" if i == 5 else "aaaa0000",
            health=[
                {"kimg": 4.0, "check": "collapse", "message": EVIL, "advice": "look", "action": action}
                for action in ("warn", "stop")
            ]
            if i == 0
            else [],
        )
        state = {4: "fail", 3: "pruned"}.get(i, "complete")
        trials.append(
            {
                "number": i,
                "state": state,
                "params": {"optimizer.generator.lr": lr, "loss": loss.partition(".")[0]},
                "values": [50.0 / 8 + i] if state == "complete" else None,
                "folders": [name],
                "error": "loss became nan" if i == 4 else None,
            }
        )
    study = {
        "study": EVIL,
        "sampler": "TPE",
        "metrics": ["fid"],
        "directions": ["minimize"],
        "trials": trials,
    }
    (top / "trials.json").write_text(json.dumps(study))
    return top


@pytest.fixture(scope="session")
def report_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ganforge.commands.report import link_from
    from ganforge.report.data import report_data
    from ganforge.report.page import page
    from ganforge.report.pictures import Embedded

    pytest.importorskip("plotly", reason="Plotly is not installed: pip install 'ganforge[report]'")
    out = tmp_path_factory.mktemp("page") / "report.html"
    out.write_text(page(report_data([folder], Embedded(6), link_from(out.parent)), f"{EVIL} & co"))
    return out
