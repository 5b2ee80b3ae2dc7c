"""A point of a search as an experiment: the words of its command line as a YAML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.types import Override


def experiment_of(
    overrides: Sequence[Override], is_group: Callable[[Override], bool], base: str | None, title: str
) -> tuple[str, list[str]]:
    """The text of the file, and the words that it cannot say.

    Args:
        overrides: of the command line, none of them with several values.
        is_group: whether one chooses a part.
        base: the experiment that they are changes of where they name no other.
        title: said in the first comment.
    """
    added: list[Any] = []
    chosen: list[Any] = []
    values: dict[str, Any] = {}
    left_out: list[str] = []
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if key == "experiment":
            base = None if override.is_delete() else str(value)
        elif override.is_delete():
            left_out.append(str(override.input_line))
        elif is_group(override):
            group = f"/{key}" + (f"@{override.package}" if override.package else "")
            if override.is_add() or override.is_force_add():
                added.append({group: value})
            else:
                chosen.append({f"override {group}": value})
        else:
            _put(values, key.split("."), value)
    text = "# @package _global_\n" + "".join(f"# {line}\n" for line in title.splitlines())
    defaults = [
        *([base] if base else []),
        *added,
        *chosen,
        "_self_",
    ]  # Hydra wants what is overridden behind the rest
    parts: dict[str, Any] = {"defaults": defaults, **values}
    return text + yaml.safe_dump(parts, sort_keys=False, allow_unicode=True), left_out


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            inner = values[name] = {}
        values = inner
    values[path[-1]] = value
