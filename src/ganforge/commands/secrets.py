"""Passwords that this process knows of, kept out of everything that it says."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

_secrets: set[str] = set()
_SHORTEST = 4  # of what is looked for by itself; a shorter one is part of many words


def keep_secret(text: str) -> None:
    """Takes note of the password in a URL such as postgresql://USER:PASSWORD@HOST/NAME, if it has one."""
    password = password_of(text)
    if password:
        _secrets.update({password, unquote(password)})


def keep_secrets_of(words: Iterable[str]) -> None:
    """Takes note of all passwords on a command line, however they are written there."""
    for word in words:
        if "://" in word:
            keep_secret(word.partition("=")[2].strip("'\"") or word)


def password_of(url: str) -> str | None:
    """As it is written there."""
    _, there, rest = url.partition("://")
    if not there:
        return None
    # A password with a / or an @ in it is no good URL, and all the more likely to be printed in a message.
    user, colon, password = rest.rpartition("@")[0].partition(":")
    return (password or None) if colon and "/" not in user else None


def without_secrets(text: str) -> str:
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(f":{secret}@", ":***@")
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text


def shown(url: str) -> str:
    """A URL without its password."""
    password = password_of(url)
    return url.replace(f":{password}@", ":***@") if password else url
