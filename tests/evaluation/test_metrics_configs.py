"""Every file of conf/metrics builds an evaluator with arguments that its class takes; every one of compute a metric."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from ganforge.commands import building, resolvers, schema
from ganforge.commands.options import config_folder
from ganforge.evaluation.evaluator import Evaluator
from ganforge.evaluation.feature_evaluator import FeatureEvaluator
from ganforge.evaluation.metrics.metric import Metric

FOLDER = config_folder() / "metrics"
OPTIONS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
METRICS = sorted(path.stem for path in (FOLDER / "compute").glob("*.yaml") if path.stem != "standard")


def composed(*overrides: str) -> dict[str, object]:
    GlobalHydra.instance().clear()
    schema.register()
    resolvers.register()
    with initialize_config_dir(str(Path(config_folder())), version_base="1.3"):
        settings = OmegaConf.to_container(compose("train", overrides=list(overrides)).metrics, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_builds(option: str) -> None:
    evaluator = building.build(composed(f"metrics={option}"), "metrics")
    assert isinstance(evaluator, Evaluator)
    if option != "auto":  # which goes by the name of the evaluator it settles on
        assert evaluator.name == option
    assert evaluator.comparable_with_papers == (option in ("inception", "clip", "dinov2", "vgg16"))
    assert evaluator.final_num_samples >= evaluator.num_samples >= 0
    assert evaluator.state() == {}
    assert evaluator.stamp()["extractor"]["name"] == ("domain" if option == "auto" else option)
    if evaluator.num_samples:
        assert evaluator.figures[evaluator.monitor] in ("lower", "higher")


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_can_be_asked_for_alone(name: str) -> None:
    evaluator = building.build(composed("metrics=digits", f"metrics/compute=[{name}]"), "metrics")
    assert isinstance(evaluator, FeatureEvaluator)
    (metric,) = evaluator.compute.values()
    assert isinstance(metric, Metric)
    assert metric.figures
    assert evaluator.stamp()["metrics"][name] == metric.parameters()
