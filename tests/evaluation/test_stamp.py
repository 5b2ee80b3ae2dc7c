"""Protocols: equal where two scores compare, and their differences in words."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from ganforge.evaluation.stamp import Stamp, differences, flat, protocol, versions


@pytest.fixture
def stamp() -> Stamp:
    return {
        "extractor": {"name": "digits", "weights_sha256": "ab" * 32, "resize": "8x8", "dtype": "float32"},
        "metrics": {"fid": {"bootstrap": 0}, "kid": {"subsets": 100, "subset_size": 1000, "bootstrap": 0}},
        "real": {"name": "digits", "count": 1797, "fingerprint": "cd" * 32},
        "generated": {"num_samples": 500, "seed": 0, "kimg": 1.5, "weights": "ema", "truncation": None},
        "versions": {"torch": "2.11"},
    }


def changed(stamp: Stamp, path: str, value: Any) -> Stamp:
    copied = copy.deepcopy(stamp)
    *sections, leaf = path.split("/")
    node = copied
    for section in sections:
        node = node[section]
    node[leaf] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generated/seed", 7),
        ("generated/seeds", 3),
        ("generated/kimg", 99.0),
        ("generated/source", "last.ckpt of run"),
        ("generated/checkpoint_sha256", "0" * 64),
        ("generated/fingerprint", "0" * 64),
        ("versions/torch", "9.9"),
        ("metrics/fid/bootstrap", 200),
        ("protocol", "12345678"),
    ],
)
def test_what_two_scores_need_not_share(stamp: Stamp, path: str, value: Any) -> None:
    other = changed(stamp, path, value)
    assert protocol(other) == protocol(stamp)
    assert differences(stamp, other) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generated/num_samples", 501),
        ("generated/weights", "raw"),
        ("generated/truncation", 0.5),
        ("generated/batch_norm", "standing"),
        ("extractor/weights_sha256", "0" * 64),
        ("extractor/resize", "clean"),
        ("real/fingerprint", "0" * 64),
        ("real/count", 1000),
        ("metrics/kid/subset_size", 500),
    ],
)
def test_what_two_scores_must_share(stamp: Stamp, path: str, value: Any) -> None:
    other = changed(stamp, path, value)
    assert protocol(other) != protocol(stamp)
    (difference,) = differences(stamp, other)
    assert difference.startswith(f"{path}: ")
    assert difference.endswith(f" and {value}")


def test_a_protocol_is_eight_hex_digits_whatever_the_order_of_keys(stamp: Stamp) -> None:
    text = protocol(stamp)
    assert len(text) == 8
    int(text, 16)
    sections = list(stamp.items())
    random.shuffle(sections)
    assert protocol({name: dict(reversed(section.items())) for name, section in sections}) == text
    assert protocol(json.loads(json.dumps(stamp))) == text  # as it is read back from a file


def test_the_protocol_of_one_metric_does_not_know_the_others(stamp: Stamp) -> None:
    fid_alone = changed(stamp, "metrics", {"fid": {"bootstrap": 0}})
    other_kid = changed(stamp, "metrics/kid/subset_size", 10)
    assert protocol(fid_alone) != protocol(stamp)
    assert protocol(fid_alone, "fid") == protocol(stamp, "fid") == protocol(other_kid, "fid")
    assert protocol(other_kid, "kid") != protocol(stamp, "kid")
    assert protocol(stamp, "fid") != protocol(stamp, "kid")


def test_a_stamp_without_sections_has_a_protocol() -> None:
    assert protocol({}) == protocol({"versions": versions()})
    assert differences({}, {}) == []


def test_flat_names_every_leaf(stamp: Stamp) -> None:
    leaves = dict(flat(stamp))
    assert leaves["metrics/kid/subset_size"] == 1000
    assert leaves["generated/kimg"] == 1.5
    assert not any(isinstance(value, dict) for value in leaves.values())


def test_versions_name_what_is_installed() -> None:
    found = versions()
    assert {"torch", "numpy", "ganforge"} <= found.keys()
    assert all(isinstance(version, str) and version for version in found.values())
