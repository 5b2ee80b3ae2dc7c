"""The benches are all run by `make bench`, and each says in its first lines what it measures."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def run_all() -> Any:
    spec = importlib.util.spec_from_file_location("bench_run_all", BENCH / "run_all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_run(run_all: Any) -> None:
    scripts = {path.stem for path in BENCH.glob("*.py")} - {"header", "run_all"}
    assert {*run_all.SCRIPTS, *run_all.OWN_PAGES} == scripts
    for name in scripts:
        assert run_all.summary(BENCH / f"{name}.py").endswith((".", ":"))


@pytest.mark.slow
def test_a_short_pass_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    command = [sys.executable, str(BENCH / "run_all.py"), "--quick", "--only", "start", "--out", str(page)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for part in (
        "# Benchmarks",
        "## start",
        "python bench/start.py --times 2",
        "| ganforge train |",
        "torch ",
    ):
        assert part in text
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks.md"]
