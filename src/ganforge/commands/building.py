"""From configuration to objects: every `_target_` is checked against its signature before anything is built."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_type_hints

import hydra.utils
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from ganforge.commands.errors import UserError
from ganforge.commands.nearest import did_you_mean

Config = dict[str, Any]

# What a checkpoint's configuration may name. Everything else needs the user's word (`trust=[package]`).
TRUSTED = (
    "ganforge.networks.",
    "ganforge.games.",
    "ganforge.losses.",
    "ganforge.penalties.",
    "ganforge.augmentations.",
    "ganforge.datasets.",
    "ganforge.evaluation.",
    "ganforge.schedules.",
)


def build(config: Any, where: str, **arguments: Any) -> Any:
    """The object (or, with `_partial_`, the callable) that a resolved plain config describes.

    Raises:
        UserError: a target that is not there, a keyword it does not take or a value of the wrong type, with its key;
            also whatever the target itself finds wrong with its values.
    """
    check(config, where, given=set(arguments))
    try:
        return hydra.utils.instantiate(config, **arguments, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | OSError):
            key = re.search(r"full_key: (\S+)", str(error))
            place = f"{where}.{key.group(1)}: " if key else ""
            raise UserError(f"{place}{cause}") from error
        raise


def check(config: Any, where: str, given: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Checks every node with a `_target_` under `config` against the signature of what it names."""
    for key, node in targets(config, where):
        _check_call(key, node, given if key == where else set())


def targets(config: Any, where: str) -> Iterator[tuple[str, Config]]:
    """Every node with a `_target_`, outermost first, with its dotted key."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield where, dict(config)
        for key, value in config.items():
            yield from targets(value, f"{where}.{key}")
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for index, value in enumerate(config):
            yield from targets(value, f"{where}[{index}]")


def leave_out_unknown_ways(config: Any, where: str) -> None:
    """Takes `head: null` and `conditioning: null` out of networks that know none, in place: what says how they take
    labels is `head=` and `conditioning=`.

    Raises:
        UserError: a head or a conditioning for a network that takes none.
    """
    if isinstance(config, dict):
        for way in ("head", "conditioning"):
            if "_target_" in config and way in config and not _takes(target_of(config, where), way):
                if config[way] is not None:
                    raise UserError(
                        f"{where}.{way}: {config['_target_']} takes labels in its own way and no {way}: leave "
                        f"{way}=... out, or have its constructor take one, as in docs/own_parts.md"
                    )
                del config[way]
        for key, value in config.items():
            leave_out_unknown_ways(value, f"{where}.{key}")


def _takes(target: Any, word: str) -> bool:
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a builtin without a signature
        return True
    return word in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def parameters_of(node: Mapping[str, Any], key: str) -> list[str]:
    """The names of what the class or function takes that a node describes."""
    return list(inspect.signature(target_of(node, key)).parameters)


def refuse_untrusted(config: Any, where: str, trust: Sequence[str] = ()) -> None:
    """A checkpoint from a stranger must not run code: its targets are ours, or the user's by name.

    Raises:
        UserError: naming the target and the way to allow it.
    """
    allowed = (*TRUSTED, *(f"{package}." for package in trust))
    for key, node in targets(config, where):
        name = str(node["_target_"])
        # The name alone is not enough: ganforge.networks.dcgan.torch.load is reached through our module, but not ours.
        home = str(getattr(target_of(node, key), "__module__", "")) if name.startswith(allowed) else name
        if f"{home}.".startswith(allowed):
            continue
        package = home.split(".")[0]
        ours = name.startswith("ganforge.")
        way_out = "" if ours else f"; if you trust its author, add trust=[{','.join([*trust, package])}]"
        raise UserError(
            f"the checkpoint's configuration names {name!r} at {key}, which is not one of ganforge's parts, "
            f"and nothing of it was run{way_out}"
        )


def target_of(node: Mapping[str, Any], key: str) -> Any:
    """The class or function that a node's `_target_` names."""
    name = node["_target_"]
    try:
        return hydra.utils.get_object(name)
    except Exception as error:
        raise UserError(f"{key}._target_={name} {_why_not_there(str(name), error)}") from error


def _why_not_there(name: str, error: Exception) -> str:
    module, _, last = name.rpartition(".")
    try:
        there = dir(importlib.import_module(module))
    except Exception:
        return f"cannot be imported: {error.__cause__ or error}"
    return f"is not there: {module} has no {last!r}{did_you_mean(last, there)}"


def _check_call(key: str, node: Config, given: set[str]) -> None:
    target = target_of(node, key)
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a builtin without a signature
        return
    words = {name: value for name, value in node.items() if not (name.startswith("_") and name.endswith("_"))}
    named = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for word in words:
        if word not in named and not takes_any:
            takes = f"takes {', '.join(sorted(named))}" if named else "has no settings"
            raise UserError(
                f"{key}.{word}: there is no such setting; {node['_target_']} {takes}{did_you_mean(word, named)}"
            )
    needed = {n for n in named if parameters[n].default is inspect.Parameter.empty}
    missing = sorted(needed - set(words) - given)
    if missing and not node.get("_partial_"):
        raise UserError(f"{key}: {node['_target_']} needs {', '.join(missing)}; set {key}.{missing[0]}=...")
    hints = _hints(target)
    for word, value in words.items():
        if word in hints and not any(True for _ in targets(value, "")):
            _check_type(f"{key}.{word}", value, hints[word])


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker understands
        return {}


def _check_type(key: str, value: Any, hint: Any) -> None:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticUserError, TypeError, NameError, AttributeError):
        return
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        messages = [
            each["msg"].removeprefix("Input should be ").split(", unable")[0] for each in error.errors()
        ]
        typable = [message for message in messages if not message.startswith("an instance of")] or messages
        raise UserError(f"{key}={value}: it should be {' or '.join(dict.fromkeys(typable))}") from error
