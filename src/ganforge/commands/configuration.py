"""Composing a command's configuration with Hydra, and explaining one that is broken."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ganforge.commands import resolvers, schema
from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.job_of_a_sweep import is_job_of_a_sweep
from ganforge.commands.lines import log_to_stderr
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.options import SWEEPER, config_folder, options
from ganforge.commands.run_folder import record_refusal
from ganforge.runs import holds_a_run

log = logging.getLogger("ganforge")


def run_with_hydra(command: str, job: Callable[[DictConfig], Any]) -> None:
    """Composes `conf/<command>.yaml` with the overrides in sys.argv and runs the job, or each job of a multirun.

    Raises:
        UserError: what Hydra and OmegaConf found wrong, said plainly; or the job's own.
        RunFailedError: the job's.
    """
    schema.register()
    resolvers.register()
    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)
    try:
        main(_Checked(job, command))()
    except PastHydra as carrier:
        raise carrier.error from carrier.error.__cause__
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_as_typed(explain(error, command))) from error
    except Exception as error:
        if type(error).__module__.startswith("submitit."):
            raise RunFailedError(f"a job of SLURM did not come to its end: {error}") from error
        if not isinstance(error, ValueError):
            raise
        if str(error).startswith("Only one of"):
            raise UserError("-m, -r, --cfg, --info and --hydra-help exclude one another") from error
        if not str(error).startswith("Config group override"):
            raise
        raise UserError(_explain_nameless_option()) from error


class PastHydra(BaseException):
    """Carries an error of the job; on an Exception Hydra would print the overrides first, and start the next job."""

    def __init__(self, error: UserError | RunFailedError) -> None:
        super().__init__(str(error))
        self.error = error


class _Checked:
    """The job, once every key is known. In a multirun a job that fails is reported, and the others are run."""

    def __init__(self, job: Callable[[DictConfig], Any], command: str) -> None:
        self.job, self.command = job, command

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        log_to_stderr()  # a launcher has sent it to a process of its own

    def __call__(self, config: DictConfig) -> Any:
        try:
            for key in _unknown_keys(config):
                raise UserError(f"there is no setting {key!r}{_nearest_key(key, self.command)}")
            return self.job(config)
        except (UserError, RunFailedError) as error:
            folder = Path(HydraConfig.get().runtime.output_dir)
            if self.command == "train" and (
                is_job_of_a_sweep() or HydraConfig.get().mode == RunMode.MULTIRUN
            ):
                if not holds_a_run(folder):
                    record_refusal(folder, HydraConfig.get().overrides.task, str(error))
            else:
                _remove_if_empty(folder)
            stopped = isinstance(error, RunFailedError) and error.stopped
            if HydraConfig.get().mode != RunMode.MULTIRUN or stopped:
                raise PastHydra(error) from error
            log.error("job %s: %s", HydraConfig.get().job.num, error)
            raise


def _remove_if_empty(folder: Path) -> None:
    """Hydra makes a job's folder before anything is checked; a mistake leaves none behind."""
    if folder != Path.cwd():
        with contextlib.suppress(OSError):
            folder.rmdir()


def _unknown_keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that `+KEY=...` has added to a section whose keys the schema fixes."""
    section = OmegaConf.get_type(config)
    if not dataclasses.is_dataclass(section):
        return
    known = {field.name for field in dataclasses.fields(section)}
    for key in map(str, config):
        if key not in known:
            yield prefix + key
        elif not OmegaConf.is_missing(config, key) and OmegaConf.is_dict(config._get_node(key)):
            yield from _unknown_keys(config[key], f"{prefix}{key}.")


def explain(error: Exception, command: str) -> str:
    """One message for an error of composition: what is wrong, and the nearest thing that is right."""
    text = f"{error}\n{error.__cause__ or ''}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} is not understood: settings are KEY=VALUE, "
            "and a value with ,:=[]{} or blanks is quoted"
        )
    if isinstance(error, MissingConfigException) or "Could not load '" in text:
        return _explain_missing_option(text)
    if "does not support sweep type" in text:
        return "interval(...) is for a search, sweep=optuna; -m alone runs every value of a list or of range(...)"
    full_key = re.search(r"full_key: (\S+)", text)
    unknown = re.search(r"Could not (?:override|delete)[^']*'([^']+)'", text)
    if not unknown and re.search(r"Key '[^']+' (?:is )?not in '", text):
        unknown = full_key
    if unknown:
        key = unknown.group(1).split("@")[0]
        return f"there is no setting {key!r}{_nearest_key(key, command)}"
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing.group(1)}=... is needed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _explain_value(text, full_key.group(1) if full_key else "") or "; ".join(
        line for line in lines if not line.startswith("object_type")
    )


def _as_typed(message: str) -> str:
    """Hydra's sweeper is `sweep` on the command line."""
    return message.replace("hydra.sweeper", "sweep").replace(SWEEPER, "sweep")


def _explain_value(text: str, key: str) -> str | None:
    """For a key that is there and a value that does not fit it."""
    value = re.search(r"Value '(.*)' (?:of type|is not a valid)", text)
    kind = re.search(r"(?:could not be converted to|not a valid) (\w+)", text)
    if value and kind:
        return f"{key}={value.group(1)}: it should be {_KINDS.get(kind.group(1), kind.group(1))}"
    override = re.search(r"Error merging override (\S+)=(.*)", text)
    if override and "is not a ListConfig" in text:
        return f"{key}={override.group(2)} is not a list: {key}=[{override.group(2)}] is"
    if override and "is not a subclass" in text:
        return (
            f"{key}={override.group(2)}: {key} is a section, whose values are set one by one: {key}.KEY=..."
        )
    comma = re.search(r"Ambiguous value for argument '([^'=]+)=([^']+)'", text)
    if comma:
        key, values = comma.groups()
        return f"{key}={values} is several values: -m runs each, {key}=[{values}] is a list, quotes make it one text"
    return None


_KINDS = {
    "Integer": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "Boolean": "true or false",
}


def _explain_missing_option(text: str) -> str:
    match = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if not match:
        return text.splitlines()[0]
    group, _, option = match.group(1).rpartition("/")
    if option.startswith("submitit"):
        return "hydra/launcher=slurm needs Hydra's submitit launcher: pip install 'ganforge[slurm]'"
    group = group.replace(SWEEPER, "sweep")
    choices = options().get(group, [])
    group = group.replace("/", ".")  # as it is typed
    return f"there is no {group}={option}: {group} can be {', '.join(choices)}{did_you_mean(option, choices)}"


def _explain_nameless_option() -> str:
    """For `GROUP=null` and `GROUP=5`, which Hydra refuses without saying where."""
    groups = options()
    for override in OverridesParser.create().parse_overrides(sys.argv[1:]):
        if override.key_or_group in groups and not isinstance(override.value(), str | list | dict):
            group = override.key_or_group
            way_out = "; ~experiment and name=... leave it out" if group == "experiment" else ""
            return f"{override.input_line}: {group} can be {', '.join(groups[group])}{way_out}"
    return "a setting is KEY=VALUE, with a key in front of the ="


def _nearest_key(key: str, command: str) -> str:
    """What the user may have meant by a key that is not there."""
    group, _, rest = key.partition(".")
    part = rest.partition(".")[0]
    known = _known_keys(command, hydra=group == "hydra")
    if part in options().get(group, []) and f"{group}.{part}" not in known:
        return f"; {group}=[{part}] adds that part"
    near = did_you_mean(key, known)
    if near:
        return near
    parent = key.rpartition(".")[0]
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    beside = [k[len(parent) + 1 :] for k in known if parent and k.rpartition(".")[0] == parent]
    if beside:
        return f": {parent} has {', '.join(beside)}"
    return f": ganforge {command} --help lists them"


def _known_keys(command: str, *, hydra: bool = False) -> list[str]:
    """Every dotted key of the command's configuration with the parts that were asked for."""
    groups = options()
    parts = [word for word in sys.argv[1:] if word.partition("=")[0] in groups]
    with composing() as compose:
        try:
            config = compose(config_name=command, overrides=parts, return_hydra_config=hydra)
        except (HydraException, OmegaConfBaseException, ValueError):
            config = compose(config_name=command, return_hydra_config=hydra)
    return [
        *_dotted(OmegaConf.to_container(config)),
        *(["experiment"] if command in ("train", "profile") else []),
    ]


@contextlib.contextmanager
def composing() -> Iterator[Callable[..., DictConfig]]:
    """Hydra's `compose` on our own configuration, also while Hydra runs a job on another."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            yield compose
    finally:
        GlobalHydra.instance().hydra = running


def _dotted(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    keys = []
    for key, value in config.items():
        if not key.startswith("_"):
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
