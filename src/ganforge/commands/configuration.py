"""Composing a command's configuration with Hydra, and explaining one that is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import hydra
from hydra.errors import (

    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganforge.commands import resolvers, schema
from ganforge.commands.errors import UserError
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.options import config_folder, options


def run_with_hydra(command: str, job: Callable[[DictConfig], Any]) -> None:
    """Composes `conf/<command>.yaml` with the overrides in sys.argv and runs the job, or each job of a multirun.

    Raises:
        UserError: what Hydra and OmegaConf found wrong, said plainly.
    """
    schema.register()
    resolvers.register()
    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)
    try:
        main(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, command)) from error


def explain(error: Exception, command: str) -> str:
    """One message for an error of composition: what is wrong, and the nearest thing that is right."""
    if isinstance(error, MissingConfigException):
        return _explain_missing_option(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} is not KEY=VALUE in Hydra's grammar: {str(error).splitlines()[0]}"
    text = f"{error}\n{error.__cause__ or ''}"
    override = re.search(r"Could not override '([^']+)'", text)
    append = re.search(r"Could not append to config|'([^']+)' is already", text)
    if override and not append:
        key = override.group(1).split("@")[0]
        return f"there is no setting {key!r}{did_you_mean(key, _known_keys(command))}"
    wrong_type = re.search(r"(Value .*|Cannot convert .*|.*could not be converted.*|Invalid value .*)", text)
    key_line = re.search(r"full_key: (\S+)", text)
    if wrong_type and key_line:
        return f"{key_line.group(1)}: {wrong_type.group(1).strip()}"
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing.group(1)}=... is needed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith(("full_key", "object_type"))) or repr(error)


def _explain_missing_option(error: MissingConfigException) -> str:
    match = re.search(r"Could not find '([^']+)'", str(error))
    name = match.group(1) if match else str(error.missing_cfg_file)
    group, _, option = name.rpartition("/")
    if error.options:
        choices = sorted(set(error.options))
        return f"{group}={option} is not there{did_you_mean(option, choices)}; {group} can be: {', '.join(choices)}"
    return str(error).splitlines()[0]


def _known_keys(command: str) -> list[str]:
    """Every dotted key of the command's default configuration, and its groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(config_name=command)
    return [*_dotted(OmegaConf.to_container(config)), *options()]


def _dotted(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    keys = []
    for key, value in config.items():
        keys += [f"{prefix}{key}", *_dotted(value, f"{prefix}{key}.")]
    return keys


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, numbers and strings."""
    try:
        result = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, "train")) from error
    assert isinstance(result, dict)
    return result  # type: ignore[return-value]
