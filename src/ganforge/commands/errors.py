"""The user's mistakes: said in one message, with exit code 2 and no traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can put right; the message names the value, where it stands and the way out."""


class RunFailedError(Exception):
    """Training ended badly, or was asked to stop; carries the exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    @property
    def stopped(self) -> bool:
        """Whether a signal ended the run: 128 and its number are the exit code."""
        return self.exit_code > 128


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns ValueError and OSError of the set-up, which our layers raise for bad input, into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except ValueError as error:
        raise UserError(str(error)) from error
