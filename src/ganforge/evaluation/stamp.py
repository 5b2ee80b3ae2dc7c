"""The protocol stamp: everything that two scores must share to be compared, and what else made a score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

Stamp = dict[str, Any]
"""Plain data in sections: extractor, metrics, real, generated, versions."""

PACKAGES = ("ganforge", "torch", "torchvision", "torch-fidelity", "torchmetrics", "numpy", "scipy", "pillow")

# What identifies the generated images, but does not make two scores incomparable.
_IDENTITY = ("source", "seed", "seeds", "kimg", "checkpoint_sha256", "fingerprint")


def versions() -> dict[str, str]:
    """Of the packages that a score may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def protocol(stamp: Stamp, metric: str | None = None) -> str:
    """Eight hex digits of the extractor, the metrics' settings, the real side and how samples were made and counted.

    Two scores compare when these agree; seeds, checkpoints and versions of packages are not part of it.

    Args:
        metric: one whose settings alone are looked at, whatever else was computed beside it.
    """
    if metric is not None:
        stamp = {**stamp, "metrics": {metric: stamp["metrics"].get(metric)}}
    text = json.dumps(_compared(stamp), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def flat(stamp: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`section/key` and value of every leaf."""
    for name, value in stamp.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def differences(first: Stamp, second: Stamp) -> list[str]:
    """`key: A and B` for each place in which two protocols differ."""
    mine, theirs = dict(flat(_compared(first))), dict(flat(_compared(second)))
    keys = dict.fromkeys([*mine, *theirs])
    return [
        f"{key}: {mine.get(key)} and {theirs.get(key)}" for key in keys if mine.get(key) != theirs.get(key)
    ]


def _compared(stamp: Stamp) -> Stamp:
    shared = {name: stamp.get(name, {}) for name in ("extractor", "metrics", "real")}
    settings = shared["metrics"].items()
    shared["metrics"] = {k: {s: v for s, v in (m or {}).items() if s != "bootstrap"} for k, m in settings}
    return {
        **shared,
        "generated": {k: v for k, v in stamp.get("generated", {}).items() if k not in _IDENTITY},
    }
