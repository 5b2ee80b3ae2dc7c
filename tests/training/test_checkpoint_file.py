"""A checkpoint is written whole or not at all, and read as data only."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from ganforge.training.checkpoint_file import AtomicCheckpointIO

real_save = torch.save


def state(value: float) -> dict[str, Any]:
    return {"weights": torch.full((1000,), value), "clock": {"images_seen": 3}}


def half_then(error: BaseException) -> Any:
    def save(checkpoint: Any, file: Any) -> None:
        file.write(b"PK" * 500)
        file.flush()
        raise error

    return save


def test_what_is_written_is_read_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    for value in torch.rand(3).tolist():
        AtomicCheckpointIO().save_checkpoint(state(value), path)
        read = AtomicCheckpointIO().load_checkpoint(path)
        assert torch.equal(read["weights"], torch.full((1000,), value))
        assert read["clock"] == {"images_seen": 3}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (RuntimeError("PytorchStreamWriter failed"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_write_that_fails_in_the_middle_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(state(1.0), path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", half_then(error))
    with pytest.raises(raised):
        AtomicCheckpointIO().save_checkpoint(state(2.0), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

    monkeypatch.setattr(torch, "save", real_save)
    AtomicCheckpointIO().save_checkpoint(state(2.0), path)
    assert AtomicCheckpointIO().load_checkpoint(path)["weights"][0] == 2.0


def test_a_file_that_the_system_refuses_to_grow_leaves_the_old_one(tmp_path: Path) -> None:
    """The system's own error comes through, for real: a limit of the file's size stands for a full disk."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(state(1.0), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            AtomicCheckpointIO().save_checkpoint(state(2.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_behind_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    (tmp_path / ".last.ckpt.tmp").write_bytes(b"half a checkpoint" * 10**5)
    AtomicCheckpointIO().save_checkpoint(state(1.0), path)
    assert AtomicCheckpointIO().load_checkpoint(path)["weights"][0] == 1.0
    assert list(tmp_path.iterdir()) == [path]


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("hostile"),))


def test_reading_runs_no_code_whatever_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    torch.save({"weights": Hostile()}, path)
    for weights_only in (True, False, None):
        with pytest.raises(pickle.UnpicklingError):
            AtomicCheckpointIO().load_checkpoint(path, weights_only=weights_only)
    assert not (tmp_path / "hostile").exists()


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    AtomicCheckpointIO().remove_checkpoint(tmp_path / "last.ckpt")
