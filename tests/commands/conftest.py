"""What the tests of the commands share: the command line, typed in this process or in one of its own."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import ganforge as package
from ganforge.commands.application import main

# Two rounds of a small run.
TINY = ("model=mlp", "metrics=none", "logger=csv", "total_kimg=0.064", "batch_size=32", "trainer=cpu")


@dataclass
class Outcome:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def refuses(self, *parts: str) -> None:
        """Asserts exit code 2 and one line on stderr, beside warnings, that has all these parts."""
        assert self.code == 2, self.err
        others = ("warning: ", "Downloading: ")
        lines = [line for line in self.err.splitlines() if line and not line.startswith(others)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ganforge: ")
        for part in parts:
            assert part in lines[0]


Ganforge = Callable[..., Outcome]


def _call(words: tuple[str, ...]) -> int:
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ganforge", *words])
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("HYDRA_FULL_ERROR", "0")
        return main()


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """The commands take the logs over, as they may in a process of their own."""
    ours, hydras = logging.getLogger("ganforge"), logging.getLogger("hydra")
    before = ours.handlers[:], ours.level, ours.propagate, hydras.level
    yield
    ours.handlers[:], ours.level, ours.propagate, hydras.level = before


@pytest.fixture
def ganforge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ganforge:
    """`ganforge WORDS` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        code = _call(words)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def train(ganforge: Ganforge) -> Ganforge:
    """`ganforge train WORDS` for two rounds, unless the words say otherwise."""
    return lambda *words: ganforge("train", *TINY, *words)


def environment() -> dict[str, str]:
    """This process's environment, in which another one finds the package and takes one thread."""
    source = str(Path(package.__file__).parents[1])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def own_environment() -> dict[str, str]:
    """For processes that a test starts by itself."""
    return environment()


@pytest.fixture
def typed(tmp_path: Path) -> Ganforge:
    """`ganforge WORDS` in a process of its own, in an empty folder."""

    def call(*words: str) -> Outcome:
        command = [sys.executable, "-m", "ganforge", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`ganforge train WORDS` for small rounds in a process of its own, with stderr to be read while it goes on."""

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ganforge", "train", *TINY, *words]
        return subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the digits, conditional; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    widths = ("model=dcgan", "model.generator.width=8", "model.discriminator.width=8")
    assert _call(("train", *TINY, *widths, "callbacks.samples=null", f"hydra.run.dir={folder}")) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to do with as one likes."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
