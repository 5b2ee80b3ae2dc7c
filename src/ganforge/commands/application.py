"""The one entry point: finds the command, runs it under Hydra, and says what went wrong in one message."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ganforge import __version__
from ganforge.commands.errors import RunFailedError, UserError
from ganforge.commands.help import COMMANDS, command_help, overview
from ganforge.commands.job_of_a_sweep import join_the_sweep, tell_the_sweep
from ganforge.commands.lines import log_to_stderr
from ganforge.commands.nearest import did_you_mean
from ganforge.commands.secrets import keep_secrets_of, without_secrets
from ganforge.commands.shorthands import FLAGS, asks_for_a_sweep, expand
from ganforge.commands.slurm import join_step
from ganforge.commands.started import comes_after_the_first, started_together

# Whether each takes a value. What chooses another configuration than ganforge's is left out.
HYDRA_FLAGS = {
    **dict.fromkeys(("--multirun", "-m", "--run", "-r", "--resolve", "--hydra-help"), False),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd"), True),
}


_MODES = {"-m", "--multirun", "-r", "--run", "-c", "--cfg", "-i", "--info", "--hydra-help"}


def main() -> int:
    """Runs the command in sys.argv; returns the exit code: 0, 2 for the user's mistakes, 1 for a run that failed."""
    words = sys.argv[1:]
    keep_secrets_of(words)
    log_to_stderr()
    join_the_sweep()
    if not words or words[0] in ("-h", "--help", "help"):
        return _show(overview())
    if words[0] == "--version":
        return _show(f"ganforge {__version__}")
    command, overrides = words[0], words[1:]
    if command not in COMMANDS:
        return _fail(
            f"there is no command {command!r}: it is one of {', '.join(COMMANDS)}{did_you_mean(command, COMMANDS)}"
        )
    if any(word in ("-h", "--help") for word in overrides):
        return _show(command_help(command))
    _let_waiting_threads_sleep()
    try:
        with _among_others(command):
            return _run(command, overrides)
    except UserError as error:
        return _fail(str(error))


def _show(text: str) -> int:
    """Prints it, for as much as the other end of a pipe, `head` perhaps, wants to read."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    return 0


def _let_waiting_threads_sleep() -> None:
    """OpenMP's threads wait for one another a little and then sleep; to be called before PyTorch is imported.

    Left to itself GNU's OpenMP spins for some 300,000 turns. Where something else needs a core, all threads then spin
    for the one that cannot run: small networks trained 10 to 40 times slower on two cores that were also in use.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


@contextlib.contextmanager
def _among_others(command: str) -> Iterator[None]:
    """Where srun or torchrun started several processes, they find one another."""
    if command in ("train", "evaluate"):
        join_step()
    if command != "train" or started_together() == 1:
        yield
        return
    from ganforge.commands.processes import leading

    with leading():
        yield


def _run(command: str, words: list[str]) -> int:
    """Runs the command, and says what went wrong."""
    try:
        own = FLAGS.get(command, {})
        return _run_under_hydra(command, flags_last(command, [own.get(word, word) for word in words]))
    except UserError as error:
        return _fail(str(error))
    except OSError as error:  # Hydra could not make the run's folder
        if error.filename is None:
            raise
        return _fail(
            f"{error.filename} cannot be written: {error.strerror}; hydra.run.dir=... chooses another folder"
        )
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a sweep's job may hear of it twice
        return 130


def _run_under_hydra(command: str, overrides: list[str]) -> int:
    from ganforge.commands.configuration import run_with_hydra

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed with a traceback
    sys.path.insert(0, os.getcwd())  # a user's own loss or network is named by `_target_: my_file.MyLoss`
    if command == "train":
        if comes_after_the_first():
            from ganforge.commands.train import follow

            return follow()
        from ganforge.commands.run_folder import resume_overrides

        overrides = resume_overrides(overrides)
    if asks_for_a_sweep(command, overrides) and not _MODES & {w.split("=")[0] for w in overrides}:
        overrides = [*overrides, "-m"]
    overrides = expand(command, overrides)

    def job(config: Any) -> Any:
        module = importlib.import_module(
            f"ganforge.commands.{command}"
        )  # seconds, not spent on a mistyped key
        result = getattr(module, command)(config)
        tell_the_sweep(returned=result)
        return result

    try:
        _with_arguments(overrides, lambda restored: run_with_hydra(command, restored(job)))
    except RunFailedError as error:
        _say(str(error))
        return error.exit_code
    return 0


def _with_arguments(overrides: list[str], call: Callable[[Callable[[Any], Any]], None]) -> None:
    """Shows Hydra the overrides alone, and the job the command line as it was typed: child processes repeat that."""
    typed = sys.argv

    def restored(job: Any) -> Any:
        def run(config: Any) -> Any:
            seen, sys.argv = sys.argv, typed
            try:
                return job(config)
            finally:
                sys.argv = seen

        return run

    sys.argv = [typed[0], *overrides]
    try:
        call(restored)
    finally:
        sys.argv = typed


def flags_last(command: str, words: list[str]) -> list[str]:
    """The words with Hydra's flags at the end, because its parser takes overrides in one stretch only.

    Raises:
        UserError: a flag that Hydra does not have.
    """
    flags: list[str] = []
    overrides: list[str] = []
    takes_value = False
    for word in words:
        name = word.split("=", 1)[0]
        if name.startswith("-"):
            if name not in HYDRA_FLAGS:
                setting = name.lstrip("-")
                raise UserError(
                    f"there is no flag {name!r}: settings are KEY=VALUE without dashes, such as {setting}=...; "
                    f"ganforge {command} --help lists them"
                )
            flags.append(word)
            takes_value = HYDRA_FLAGS[name] and "=" not in word
        else:
            (flags if takes_value else overrides).append(word)
            takes_value = False
    return overrides + flags


def _fail(message: str) -> int:
    _say(message)
    return 2


def _say(message: str) -> None:
    message = without_secrets(message)
    if not tell_the_sweep(error=message):
        print(f"ganforge: {message}", file=sys.stderr)
