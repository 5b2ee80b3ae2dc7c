"""Each conf/data/*.yaml names what exists, with arguments it takes, and states the facts models need."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).resolve().parents[2] / "conf" / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_fits_its_target(path):
    config = yaml.safe_load(path.read_text())
    config.pop("defaults", None)  # what the data chooses in other groups
    module, _, name = config.pop("_target_").rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    signature.bind(**config)
    assert {"image_size", "channels", "num_classes"} <= config.keys()
    defaults = {
        key: each.default for key, each in signature.parameters.items() if key in config and key != "root"
    }
    assert {key: config[key] for key in defaults} == defaults, "the YAML and the signature disagree"
    assert path.read_text().startswith("# "), "says its source first"
