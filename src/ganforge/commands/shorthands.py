"""Overrides as people type them, in the words of Hydra's grammar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ganforge.commands.errors import UserError
from ganforge.commands.options import options

SIDES = ("generated", "real", "held_out")


def expand(command: str, words: Sequence[str]) -> list[str]:
    """The words with our shorthands spelled out.

    stop.fid=20 is a key that is made as it is named; metrics.extractor=digits is metrics=digits;
    metrics.compute=[fid,kid] chooses from a group inside a group; and real=cifar10 is data@real=cifar10.

    Raises:
        UserError: a side that is both a data set and a file here.
    """
    groups = options()
    named = any(word.startswith(("metrics=", "metrics.extractor=")) for word in words)
    return [_expand(command, word, groups, metrics_named=named) for word in words]


def _expand(command: str, word: str, groups: dict[str, list[str]], *, metrics_named: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return word
    if command in ("train", "profile") and key.startswith("stop."):
        return f"++{word}"
    if key == "metrics.extractor" and value.isidentifier():
        return f"metrics={value}"
    if key == "metrics.compute" and not value.startswith("{"):
        if value.isidentifier():
            value = f"[{value}]"
        # A checkpoint's own metrics are known when it is open: what to compute is then put in their place.
        return (
            f"compute={value}" if command == "evaluate" and not metrics_named else f"metrics/compute={value}"
        )
    if command == "evaluate" and key in SIDES and value in groups["data"]:
        if Path(value).exists():
            raise UserError(
                f"{word} is a data set and also a file or folder here: "
                f"{key}=./{value} is the one, data@{key}={value} the other"
            )
        return f"data@{key}={value}"
    return word
