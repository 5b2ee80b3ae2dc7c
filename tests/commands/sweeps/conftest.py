"""What the tests of sweeps share: searches over jobs that take no time, in this process or one to be killed."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest

HERE = Path(__file__).parent
PASSWORD = "s3cret/pass@word"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"sweeps_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    """The program driver.py as a module."""
    return _load("driver")


@pytest.fixture
def search(
    driver: ModuleType, tmp_path: Path, own_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Plays a search over quick jobs to its end in `sweep`, and returns its study."""
    monkeypatch.setenv("PYTHONPATH", own_environment["PYTHONPATH"])

    def play(folder: str | Path = "sweep", **settings: Any) -> Any:
        return driver.search(tmp_path / folder, **settings)

    return play


@pytest.fixture
def start_driver(tmp_path: Path, own_environment: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Starts a driver of a search in `sweep` as a process of its own."""
    begun: list[subprocess.Popen[str]] = []

    def start(folder: str | Path = "sweep", **settings: Any) -> subprocess.Popen[str]:
        words = json.dumps({"folder": str(tmp_path / folder), **settings})
        command = [sys.executable, str(HERE / "driver.py"), words]
        process = subprocess.Popen(
            command, env=own_environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def trials_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "trials.json").read_text())
    return result


def played(folder: Path) -> Counter[str]:
    """How often each line of the jobs' log was written."""
    log = folder / "played.log"
    return Counter(log.read_text().splitlines() if log.exists() else [])


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL, with a password, of a real PostgreSQL on the loopback, started for these tests; a fresh database."""
    places = [os.environ["PATH"], *sorted(glob.glob("/usr/lib/postgresql/*/bin"))]
    programs = {name: shutil.which(name, path=os.pathsep.join(places)) for name in ("initdb", "pg_ctl")}
    if None in programs.values():
        pytest.skip("PostgreSQL is not installed: no initdb or pg_ctl")
    as_user: list[str] = []
    if os.geteuid() == 0:  # who may not run it
        names = [name for name in ("postgres", "nobody") if _is_user(name)]
        if not names or shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no setpriv or no other user")
        as_user = ["setpriv", f"--reuid={names[0]}", "--clear-groups", "--"]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ganforge-postgresql-")))
        (folder / "password").write_text(PASSWORD)
        if as_user:
            for path in (folder, folder / "password"):
                shutil.chown(path, as_user[1].partition("=")[2])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def run(*words: str) -> None:
            done = subprocess.run(
                [*as_user, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            assert done.returncode == 0, done.stderr

        data, initdb, pg_ctl = str(folder / "data"), str(programs["initdb"]), str(programs["pg_ctl"])
        secret = ["-A", "scram-sha-256", "-U", "ganforge", f"--pwfile={folder / 'password'}"]
        run(initdb, "-D", data, *secret, "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        run(pg_ctl, "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
        stack.callback(run, pg_ctl, "-D", data, "-m", "immediate", "stop")
        yield f"postgresql://ganforge:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Where a study is kept, as `sweep.storage` says it."""
    if request.param == "journal":
        return None
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    url = request.getfixturevalue("postgresql")
    assert isinstance(url, str)
    return url


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Neither a file handle nor a process, beside what other tests may have of both."""
    before = _open_files(), _children()
    yield
    assert (_open_files(), _children()) == before


def _open_files() -> set[str]:
    folder = Path("/proc/self/fd")
    return {path.name for path in folder.iterdir() if path.exists()} if folder.exists() else set()


def _children() -> set[str]:
    lists = Path("/proc/self/task").glob("*/children")
    return {child for each in lists for child in each.read_text().split()}
