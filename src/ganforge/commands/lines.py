"""What a command says while it works: plain lines on stderr."""

from __future__ import annotations

import logging
import sys

from ganforge.commands.secrets import without_secrets

log = logging.getLogger("ganforge")


def log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("hydra").setLevel(logging.CRITICAL)  # what it logs, it also raises


def log_to_stderr_too(name: str) -> None:
    """What a library logs under this name is said as what we say."""
    logging.getLogger(name).handlers[:] = log.handlers


class _Formatter(logging.Formatter):
    """Plain lines, without passwords; a warning says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        text = without_secrets(record.getMessage())
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
