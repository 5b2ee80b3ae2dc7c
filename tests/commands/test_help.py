"""What help says is true: it lists all there is in conf/, and every example can be typed."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from ganforge import __version__
from ganforge.commands import resolvers, schema
from ganforge.commands.help import COMMANDS, EXAMPLES, OWN_KEYS, SWEEP_KEYS
from ganforge.commands.options import config_folder, options
from ganforge.commands.shorthands import FLAGS, expand
from ganforge.commands.sweeps.space import space_of

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(path for path in CONF.glob("*/**/*.yaml") if "hydra" not in path.relative_to(CONF).parts)
OPTIONS = [path.relative_to(CONF).with_suffix("") for path in FILES]
SCHEMAS = {
    "train": schema.TrainConfig,
    "evaluate": schema.EvaluateConfig,
    "sample": schema.SampleConfig,
    "prepare": schema.PrepareConfig,
    "profile": schema.ProfileConfig,
    "zoo": schema.ZooConfig,
    "dashboard": schema.DashboardConfig,
    "report": schema.ReportConfig,
    "compare": schema.CompareConfig,
}


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)], ids=" ".join)
def test_overview(words: tuple[str, ...], ganforge: Any) -> None:
    outcome = ganforge(*words)
    assert outcome.code == 0
    assert outcome.err == ""
    for command, what in COMMANDS.items():
        assert f"{command} " in outcome.out
        assert what in outcome.out
    assert sum(line.startswith("  ganforge ") for line in outcome.out.splitlines()) == 5


def test_version(ganforge: Any) -> None:
    assert ganforge("--version").out == f"ganforge {__version__}\n"


@pytest.mark.parametrize("words", [(), ("train", "--help"), ("train", "loss=hinge", "-h")], ids=" ".join)
def test_every_group_and_option_is_listed(words: tuple[str, ...], ganforge: Any) -> None:
    listed = groups_in(ganforge(*words).out)
    assert len(OPTIONS) > 50
    for option in OPTIONS:
        if option.parent.name != "sampling":  # which train does not compose
            assert option.name in listed[str(option.parent).replace("/", ".")]
    assert "sampling" not in listed


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_ways_of_sampling_are_listed_where_they_compose(command: str, ganforge: Any) -> None:
    listed = groups_in(ganforge(command, "--help").out)
    assert listed["sampling"] == [option.name for option in OPTIONS if option.parent.name == "sampling"]


def groups_in(text: str) -> dict[str, list[str]]:
    """The options by group, of which a long list goes on in further lines."""
    paragraph = text.split("(GROUP=OPTION):\n")[1].split("\n\n")[0]
    joined = re.sub(r"\n {10,}", " ", paragraph)
    entries = [line.split(maxsplit=1) for line in joined.splitlines()]
    return {group: names.split(", ") for group, names in entries}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_lists_its_own_settings_and_its_examples(command: str, ganforge: Any) -> None:
    text = ganforge(command, "--help").out
    groups = {str(option.parent) for option in OPTIONS}
    fields = {field.name for field in dataclasses.fields(SCHEMAS[command])}
    not_typed = {  # as they stand
        "train": {"num_classes", "recipe"},
        "evaluate": {"compute"},
        "sample": set(),
        "profile": {"num_classes", "resume", "recipe"},
    }
    own = set(OWN_KEYS[command].split())
    assert own - {"experiment"} == fields - groups - not_typed.get(command, set())
    (settings,) = [part for part in text.split("\n\n") if part.startswith("Settings: ")]
    assert set(re.split(r",\s+", settings.removeprefix("Settings: "))) == own
    assert [line.strip() for line in text.splitlines() if line.startswith("  ganforge ")] == [
        example for example, _ in EXAMPLES[command]
    ]
    assert len(EXAMPLES[command]) >= 5


def test_the_settings_of_a_search_are_listed(ganforge: Any) -> None:
    listed = ganforge("train", "--help").out
    search = yaml.safe_load((CONF / "hydra" / "sweeper" / "optuna.yaml").read_text())
    settings = {key for key in search if not key.startswith("_")} - {"defaults"}
    assert set(SWEEP_KEYS.split()) == settings
    assert all(f"sweep.{key}" in listed for key in settings)
    for group in ("sweeper", "sweeper/sampler", "sweeper/pruner"):
        names = sorted(path.stem for path in (CONF / "hydra" / group).glob("*.yaml"))
        assert groups_in(listed)[group.replace("sweeper", "sweep").replace("/", ".")] == names


ALL_EXAMPLES = [(command, example) for command in EXAMPLES for example, _ in EXAMPLES[command]]


@pytest.mark.parametrize(("command", "example"), ALL_EXAMPLES, ids=[example for _, example in ALL_EXAMPLES])
def test_every_example_composes(command: str, example: str) -> None:
    program, named, *words = shlex.split(example)
    assert (program, named) == ("ganforge", command)
    schema.register()
    resolvers.register()
    words = [FLAGS.get(command, {}).get(word, word) for word in words]
    overrides = expand(command, [word for word in words if word != "-m" and not word.startswith("resume=")])
    space = space_of(OverridesParser.create().parse_overrides(overrides), list(options()))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        for point in list(space.corners())[-2:]:
            compose(config_name=command, overrides=space.words(point))


def test_a_reader_may_stop_early(own_environment: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ganforge", "train", "--help"]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, env=own_environment
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_composed_configuration_is_printed(ganforge: Any) -> None:
    for command in COMMANDS:
        bare = {"prepare": ("pictures", "source: pictures"), "zoo": ("digits", "name: digits")}
        bare["dashboard"] = ("project=faces", "project: faces")
        bare |= dict.fromkeys(("report", "compare"), ("my_runs", "runs:\n- my_runs"))
        word, shown = bare.get(command, ("seed=11", "seed: 11"))
        outcome = ganforge(command, word, "--cfg", "job")
        assert outcome.code == 0
        assert shown in outcome.out
