"""The user's mistakes: said in one message, with exit code 2 and no traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can put right; the message names the value, where it stands and the way out."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns ValueError and OSError of the set-up, which our layers raise for bad input, into UserError."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
