"""Every file of conf/metrics builds an evaluator with arguments that its class takes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ganforge.evaluation.evaluator import Evaluator

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "metrics").glob("*.yaml"))


def build(config):
    """What Hydra's instantiate does with plain nested targets."""
    if isinstance(config, list):
        return [build(item) for item in config]
    if not isinstance(config, dict):
        return config
    module, name = config["_target_"].rsplit(".", 1)
    arguments = {key: build(value) for key, value in config.items() if key != "_target_"}
    return getattr(import_module(module), name)(**arguments)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds(path):
    evaluator = build(OmegaConf.to_container(OmegaConf.load(path)))
    assert isinstance(evaluator, Evaluator)
    if path.stem != "auto":  # which goes by the name of the evaluator it settles on
        assert evaluator.name == path.stem
    assert evaluator.comparable_with_papers == (path.stem == "inception")
    assert evaluator.final_num_samples >= evaluator.num_samples >= 0
    assert evaluator.state() == {}
    assert evaluator.stamp()["evaluator"] == evaluator.name
