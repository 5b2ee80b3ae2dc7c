"""Overrides as people type them, in the words of Hydra's grammar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ganforge.commands.errors import UserError
from ganforge.commands.options import SWEEPER, options
from ganforge.commands.run_folder import quoted
from ganforge.commands.schema import settings_of

SIDES = ("generated", "real", "held_out")
BARE = {"prepare": "source", "zoo": "name"}  # what a word without a key stands for
BARE_LISTS = {"report": "runs", "compare": "runs"}  # and what several of them do
FLAGS = {"report": {"--watch": "watch=true"}}  # settings that are also written as flags


def expand(command: str, words: Sequence[str]) -> list[str]:
    """The words with our shorthands spelled out.

    stop.fid=20 is a key that is made as it is named; trainer.fast=true is fast.all=true, init=RUN is init.path=RUN, and
    metrics.extractor=digits metrics=digits; metrics.compute=[fid,kid] chooses from a group inside a group; real=cifar10
    is data@real=cifar10; sweep=optuna and sweep.KEY=... are Hydra's sweeper and its settings; prepare's word without a
    key is its source, zoo's a recipe's name, and those of report and compare are folders.

    Raises:
        UserError: a side that is both a data set and a file here, several sources, or a setting left out.
    """
    groups = options()
    for word in words:
        key = word[1:].partition("=")[0]
        if word.startswith("~") and key in settings_of(command) - groups.keys():
            raise UserError(f"{word}: ganforge {command} always has {key}; {key}=VALUE sets it")
    if command in BARE:
        words = _with_bare_word(command, BARE[command], words)
    if command in BARE_LISTS:
        words = _with_bare_list(BARE_LISTS[command], words)
    named = any(word.startswith(("metrics=", "metrics.extractor=")) for word in words)
    return [_expand(command, word, groups, metrics_named=named) for word in words]


def _sweep(key: str, value: str, groups: dict[str, list[str]]) -> str:
    """`sweep=optuna` and `sweep.sampler=cmaes` choose, and `sweep.n_jobs=2` sets."""
    if key.replace(".", "/") in groups:
        return f"{key.replace('.', '/').replace('sweep', SWEEPER, 1)}={value}"
    return f"{key.replace('sweep', SWEEPER.replace('/', '.'), 1)}={value}"


def asks_for_a_sweep(command: str, words: Sequence[str]) -> bool:
    """Whether settings of a sweep are there, which go without saying -m."""
    return command in ("train", "profile") and any(
        word.lstrip("+").startswith(("sweep=", "sweep.")) for word in words
    )


def _with_bare_word(command: str, key: str, words: Sequence[str]) -> list[str]:
    flags = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    bare = [word for word in words[:flags] if "=" not in word]
    if len(bare) > 1:
        raise UserError(f"{command} takes one {key.upper()}, not {len(bare)}: {', '.join(bare)}")
    return [f"{key}={quoted(word)}" if word in bare else word for word in words[:flags]] + list(words[flags:])


def _with_bare_list(key: str, words: Sequence[str]) -> list[str]:
    flags = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    bare = [word for word in words[:flags] if "=" not in word or Path(word).exists()]
    listed = [f"{key}=[{','.join(map(quoted, bare))}]"] if bare else []
    return [*listed, *(word for word in words[:flags] if word not in bare), *words[flags:]]


def _expand(command: str, word: str, groups: dict[str, list[str]], *, metrics_named: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return word
    if command in ("train", "profile") and key.startswith("stop."):
        return f"++{word}"
    if command in ("train", "profile") and key == "init":
        return f"init.path={value}"
    if asks_for_a_sweep(command, [word]):
        plus = key[: len(key) - len(key.lstrip("+"))]
        return plus + _sweep(key.lstrip("+"), value, groups)
    if key == "trainer.fast":
        return f"fast.all={value}"
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
