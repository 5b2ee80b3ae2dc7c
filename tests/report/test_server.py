"""The page served while runs train: it follows what they write, and keeps what the user has set."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ganforge as package

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def outputs(folder: Path, tmp_path: Path) -> Path:
    """A copy that the tests may write in."""
    return Path(shutil.copytree(folder, tmp_path / "outputs" / "digits" / "search")).parents[1]


@pytest.fixture
def server(outputs: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`ganforge report --watch`, and its port."""
    pytest.importorskip("plotly")
    source = str(Path(package.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "ganforge", "report", str(outputs), "--watch", "port=0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("http://127.0.0.1:"), line
    yield process, int(line.split("/")[2].partition(":")[2])
    process.kill()
    process.communicate()


def ask(port: int, path: str, host: str = "localhost:1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_it_follows_runs_and_keeps_what_the_user_set(
    server: tuple[subprocess.Popen[str], int], outputs: Path, watched: Any, until: Any, write_run: Any
) -> None:
    process, port = server
    shown = watched.open(f"http://127.0.0.1:{port}/")
    shown.fill("#filter", "loss=hinge")
    shown.keyboard.press("Enter")
    shown.locator("#runs th[data-column='name'] button").first.click()
    chart = shown.locator("#panels .chart").first
    until(lambda: chart.locator(".plot-container").count() == 1)
    chart.focus()
    shown.keyboard.press("+")
    zoomed = chart.evaluate("chart => chart.layout.xaxis.range")
    assert (
        shown.locator("#grids img").first.evaluate("async i => { await i.decode(); return i.naturalWidth; }")
        == 64
    )

    run = outputs / "digits" / "search" / "0"
    with (run / "metrics.csv").open("a") as file:
        file.write("9000,9,0.9,1.25\r\n")
    write_run(outputs / "digits" / "search" / "6", loss="hinge.Hinge", lr=5e-4, fid=(40.0, 30.0))
    names = shown.locator("#runs tbody .name")
    until(lambda: names.all_inner_texts() == [f"search/{i}" for i in (0, 2, 4, 6)])
    assert "1.25" in shown.locator("#runs tbody tr").first.inner_text()
    until(lambda: chart.evaluate("chart => chart.data[0].y[8]") == 1.25)
    assert chart.evaluate("chart => chart.layout.xaxis.range") == zoomed
    assert shown.input_value("#filter") == "loss=hinge"
    assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in watched.requests if url != "data:,")

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    until(lambda: "The server has stopped" in shown.inner_text("#live"))
    watched.complaints.clear()  # the browser says that the server is gone


def test_only_files_of_the_runs_and_only_for_this_machine(server: tuple[subprocess.Popen[str], int]) -> None:
    _, port = server
    status, content = ask(port, "/data.json")
    assert status == 200
    data = json.loads(content)
    links = dict(data["runs"][0]["links"])
    assert (
        ask(port, "/" + links["config.yaml"])[1].startswith(b"comment: plain")
        or b"name: digits" in ask(port, "/" + links["config.yaml"])[1]
    )
    assert b"metrics.csv" in ask(port, "/" + links["folder"])[1]
    assert ask(port, f"/data.json?have={data['tag']}")[0] == 204
    for path in (
        "/files/../../../etc/passwd",
        "/files/00/x",
        "/etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/files/",
    ):
        assert ask(port, path)[0] == 404
    assert ask(port, "/", host="evil.example:80")[0] == 403
