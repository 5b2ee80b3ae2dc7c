"""What is shipped: the wheel's content, the pinned set, and what make says when there is no usable Python."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import ganforge

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network by hatchling itself."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def files_under(folder: str, prefix: str) -> set[str]:
    """Each file below a folder of the checkout, named as it should be in the wheel."""
    found = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {prefix + path.relative_to(ROOT / folder).as_posix() for path in found}


@pytest.mark.parametrize(("folder", "prefix"), [("src/ganforge", "ganforge/"), ("conf", "ganforge/conf/")])
def test_the_wheel_has_every_file(wheel: Path, folder: str, prefix: str) -> None:
    expected = files_under(folder, prefix)
    assert expected
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_what_training_and_evaluation_read(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = {"__main__.py", "conf/train.yaml", "conf/loss/hinge.yaml", "evaluation/digits.safetensors"}
    assert {f"ganforge/{name}" for name in needed} <= names
    assert not any(name.startswith(("tests/", "conf/", "outputs/")) for name in names)


def test_the_installed_wheel_finds_its_own_configuration(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-m", "ganforge", "train", "--cfg", "job"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ganforge.losses." in done.stdout


def test_the_version_is_written_alike_everywhere() -> None:
    assert PROJECT["version"] == ganforge.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] in {"Unreleased", PROJECT["version"]}


def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_are_names_and_exact_versions_only() -> None:
    pin = re.compile(r"[a-z0-9]+([-.][a-z0-9]+)*==[0-9][0-9a-z.]*(; python_version [<>=]+ \"3\.\d+\")?")
    assert [line for line in pins() if not pin.fullmatch(line)] == []
    names = [line.split("==")[0] for line in pins()]
    assert names == sorted(set(names))


def test_constraints_pin_every_direct_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + [requirement for extra in extras.values() for requirement in extra]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} - {"ganforge"}
    assert names <= {line.split("==")[0] for line in pins()}


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run make in a copy of the checkout that has no .venv."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    # these tests run under `make test`, whose own variables (PYTHON=..., its flags) would be handed down
    inherited = ("MAKE", "MFLAGS", "PYTHON")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(inherited)}
    environment |= {} if path is None else {"PATH": path}
    return subprocess.run([program, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def python_that_says(version: str, path: Path) -> Path:
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_make_says_plainly_that_there_is_no_python(tmp_path: Path) -> None:
    done = make(tmp_path, "train", path=str(tmp_path / "nothing_is_here"))
    assert done.returncode != 0
    assert "ganforge needs Python 3.11, 3.12 or 3.13, and none was found." in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_says_plainly_that_the_named_python_is_not_there(tmp_path: Path) -> None:
    done = make(tmp_path, "train", "PYTHON=/nonexistent")
    assert done.returncode != 0
    assert "ganforge needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "/nonexistent cannot be run" in done.stderr


@pytest.mark.parametrize("version", ["3.8", "3.10", "3.14"])
def test_make_says_plainly_that_python_is_too_old_or_too_new(tmp_path: Path, version: str) -> None:
    python = python_that_says(version, tmp_path / "python3")
    done = make(tmp_path, "test", f"PYTHON={python}")
    assert done.returncode != 0
    assert f"{python} is {version}" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_passes_over_pythons_that_fail(tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    broken = shims / "python3.13"
    broken.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    broken.chmod(0o755)
    python_that_says("3.9", shims / "python3.12")
    python_that_says("3.11", shims / "python3")
    done = make(tmp_path, "--silent", "python", path=str(shims))
    assert (done.returncode, done.stdout.strip()) == (0, "python3")
