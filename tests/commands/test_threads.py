"""OpenMP's waiting threads are told to sleep soon, unless the user has said how they are to wait."""

from __future__ import annotations

import os

import pytest

from ganforge.commands.application import main

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_waiting_threads_sleep_unless_told_otherwise(
    own: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["ganforge", "train", "model=no_such_model"])
    assert main() == 2
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == (
        own or {"GOMP_SPINCOUNT": "10000"}
    )
