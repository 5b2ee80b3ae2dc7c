"""The documentation holds: its commands compose, its links lead somewhere, and its code really runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from ganforge.commands import resolvers, schema
from ganforge.commands.building import build
from ganforge.commands.help import COMMANDS, EXAMPLES
from ganforge.commands.options import config_folder, options
from ganforge.commands.shorthands import FLAGS, expand
from ganforge.commands.sweeps.space import space_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN_PARTS = ROOT / "docs" / "own_parts.md"
EVALUATING = ROOT / "docs" / "evaluating.md"
ADDING = ROOT / "docs" / "adding_a_paper.md"
HEALTH = ROOT / "docs" / "health.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text()) if found == language]


def commands() -> Iterator[tuple[Path, str]]:
    """Every `ganforge COMMAND ...` of a shell block, a line each, with the page it stands on."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("ganforge "):
                    yield page, line


COMMAND_LINES = [pytest.param(page, line, id=f"{page.stem}: {line}") for page, line in commands()]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's own folder that the pages describe, made of their code blocks, as the current directory."""
    for name, text in own_files().items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in (
        "my_loss",
        "my_penalty",
        "my_model",
        "my_extractor",
        "my_metric",
        "my_ralsgan",
        "my_check",
    ):
        sys.modules.pop(module, None)


def own_files() -> dict[str, str]:
    """The files that the pages show: a block whose line before is its name in backticks."""
    pages = "".join(page.read_text() for page in (OWN_PARTS, EVALUATING, ADDING, HEALTH))
    return dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)^```$", pages, re.M | re.S))


def test_there_are_commands_to_check() -> None:
    assert len(COMMAND_LINES) > 20
    assert {page.name for page, _ in commands()} >= {
        "README.md",
        "first_run.md",
        "own_parts.md",
        "own_data.md",
        "evaluating.md",
        "metrics.md",
    }


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_documented_command_composes(page: Path, line: str, own_folder: Path) -> None:
    words = shlex.split(line, comments=True)[1:]
    assert words[0] in COMMANDS
    config = compose(words[0], words[1:], own_folder)
    assert OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("command", EXAMPLES)
def test_example_of_the_help_text_composes(command: str, own_folder: Path) -> None:
    for line, _ in EXAMPLES[command]:
        words = shlex.split(line)[1:]
        assert OmegaConf.to_container(compose(words[0], words[1:], own_folder), resolve=True)


def compose(command: str, words: list[str], folder: Path) -> DictConfig:
    """The configuration of a command line; flags are looked at here, and a sweep stands for its first job."""
    overrides = []
    words = [FLAGS.get(command, {}).get(word, word) for word in words]
    words = [word for word in words if word not in ("-m", "--cfg", "job", "--help")]
    while words:
        word = words.pop(0)
        if word == "--config-dir":
            overrides.append(f"hydra.searchpath=['file://{folder / words.pop(0)}']")
        else:
            overrides.append(word)
    assert not [word for word in overrides if word.startswith("-")], "a flag that this test does not know"
    schema.register()
    resolvers.register()
    GlobalHydra.instance().clear()
    space = space_of(OverridesParser.create().parse_overrides(expand(command, overrides)))
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose(config_name=command, overrides=space.words(space.first()))


def slug(heading: str) -> str:
    """The anchor that a Markdown heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_figures_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text()), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall((ROOT / "README.md").read_text())}
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"docs/{page.name}" in linked


def test_readme_names_every_option() -> None:
    """The table of what composes is complete, but for groups without a choice and recipes that others build on."""
    readme = (ROOT / "README.md").read_text()
    for group, names in options().items():
        if group == "callbacks":
            continue
        row = re.search(rf"^\| `{group.replace('/', '.')}`.*$", readme, re.MULTILINE)
        assert row, f"the README's table has no row for {group}"
        assert set(names) <= set(re.findall(r"`(\w+)`", row.group(0))), group


def run(
    *words: str, folder: Path, code: str | None = None, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`ganforge WORDS`, or some Python code, in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "GANFORGE_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, *(["-m", "ganforge"] if code is None else ["-c", code]), *words],
        input=typed,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_own_loss_penalty_and_model_train_resume_and_sample(own_folder: Path) -> None:
    assert {"my_loss.py", "my_penalty.py", "my_model.py"} <= set(own_files())
    parts = ["loss=pearson", "penalty=[r1,drift]", "model=upsample", "model.generator.width=8"]
    quick = ["metrics.num_samples=50", "metrics.final_num_samples=50", "callbacks.evaluation.every_kimg=0"]
    words = ["--config-dir", "conf", *parts, *quick, "total_kimg=0.2", "hydra.run.dir=run"]
    trained = run("train", *words, folder=own_folder)
    assert trained.returncode == 0, trained.stderr
    header = (own_folder / "run" / "metrics.csv").read_text().splitlines()[0]
    assert "train/discriminator/drift" in header.split(",")

    resumed = run("train", "resume=run", "total_kimg=0.3", folder=own_folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on in" in resumed.stderr

    refused = run("sample", "checkpoint=run", "num=2", folder=own_folder)
    assert refused.returncode == 2
    assert "trust=[my_" in refused.stderr

    trust = "trust=[my_loss,my_penalty,my_model]"
    sampled = run("sample", "checkpoint=run", "num=2", "out=fakes", trust, folder=own_folder)
    assert sampled.returncode == 0, sampled.stderr
    assert len(list((own_folder / "fakes").glob("?.png"))) == 2

    evaluated = run("evaluate", "checkpoint=run", "num_samples=50", trust, folder=own_folder)
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.slow
def test_own_parts_named_on_the_command_line_train(own_folder: Path) -> None:
    lines = [line for page, line in commands() if page == OWN_PARTS and "_target_=" in line]
    assert len(lines) == 3
    words = [word for line in lines for word in shlex.split(line)[2:]]
    trained = run("train", *words, "total_kimg=0.1", "metrics=none", "hydra.run.dir=run", folder=own_folder)
    assert trained.returncode == 0, trained.stderr
    refused = run("train", *words, "head=acgan", "total_kimg=0.1", "metrics=none", folder=own_folder)
    assert refused.returncode == 2
    assert "model.discriminator.head: my_model.Discriminator takes labels in its own way" in refused.stderr


def test_the_added_paper_is_right_and_trains(own_folder: Path) -> None:
    from my_ralsgan import RelativisticLeastSquares  # type: ignore[import-not-found]

    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([0.0, -2.0])  # means 2 and -1
    loss = RelativisticLeastSquares()
    assert loss.discriminator_loss(real, fake).item() == (9 + 1) / 2 + (1 + 9) / 2
    assert loss.generator_loss(real, fake).item() == (9 + 25) / 2 + (25 + 9) / 2
    (line,) = [line for page, line in commands() if page == ADDING and "data=digits" in line]
    words = [word for word in shlex.split(line, comments=True)[1:] if not word.startswith("total_kimg")]
    quick = ["metrics=none", "logger=csv", "total_kimg=0.1", "hydra.run.dir=run"]
    trained = run(*words, *quick, folder=own_folder)
    assert trained.returncode == 0, trained.stderr


def test_the_guides_own_check_speaks_and_is_built(own_folder: Path) -> None:
    (line,) = [line for page, line in commands() if page == HEALTH and "my_check" in line]
    config = compose("train", shlex.split(line)[2:], own_folder)
    callbacks = build(OmegaConf.to_container(config.callbacks, resolve=True), "callbacks")
    check = callbacks["health"].checks["drift"]
    drifted = {"train/discriminator/real_logits": 300.0, "train/discriminator/fake_logits": 280.0}
    found = [check.look({}), *(check.look(drifted) for _ in range(3))]
    assert [finding.message for finding in found if finding] == ["logits drift: their mean is 290"]


def test_every_check_stands_in_the_guide() -> None:
    checks = yaml.safe_load((ROOT / "conf" / "callbacks" / "default.yaml").read_text())["health"]["checks"]
    rows = re.findall(r"^\| `(\w+)` \|.*\|.*\|.*\|$", HEALTH.read_text(), re.MULTILINE)
    assert [row for row in rows if row in checks] == list(checks)


TYPED_IN_TURN = """
import shlex, sys
from hydra.core.global_hydra import GlobalHydra
from ganforge.commands.application import main
for line in sys.stdin.read().splitlines():
    GlobalHydra.instance().clear()
    sys.argv = shlex.split(line)
    if main():
        sys.exit(line)
"""
SHOWN = re.compile(r"^│ (fid|fid_real_halves|fid_low|kid_mean|brightness) +│ +(\S+) │", re.MULTILINE)


@pytest.mark.slow
def test_guide_to_evaluating_runs_as_written(own_folder: Path) -> None:
    """The commands on the two folders, but for those with downloads, print what the page shows of them."""
    made = subprocess.run([sys.executable, "two_folders.py"], cwd=own_folder, timeout=120)
    assert made.returncode == 0
    lines = [line for page, line in commands() if page == EVALUATING and "real=real" in line]
    chosen = [line for line in lines if "inception" not in line and "dinov2" not in line]
    assert len(chosen) == 8
    done = run(folder=own_folder, code=TYPED_IN_TURN, typed="\n".join(chosen))
    assert done.returncode == 0, done.stderr
    shown = SHOWN.findall(EVALUATING.read_text())
    printed = {(name, value[:5]) for name, value in SHOWN.findall(done.stdout)}
    of_a_run = {"1.8402", "0.60184", "0.067025"}
    assert {(name, value[:5]) for name, value in shown if value not in of_a_run} <= printed
