"""A run's W&B files of earlier starts, mended so that `wandb sync` uploads every step once.

Each start of a run writes a file of its own, `wandb/offline-run-*/run-ID.wandb`. That of a run which was killed goes on
beyond the checkpoint that the next start begins from, and may end in the middle of a record; `wandb sync` would then
upload steps twice, or stop at that file.

The files are logs as LevelDB writes them: after a header of 7 bytes blocks of 32 KiB with pieces of records, each piece
with a checksum, its length and its place in the record.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("ganforge")

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32768
_PIECE = struct.Struct("<IHB")  # checksum, length, place
_WHOLE, _FIRST, _LAST = 1, 2, 4


class _Record(NamedTuple):
    """Where a record lies, and the step of the row that it holds, if it is one."""

    start: int
    end: int
    step: int | None
    names_run: bool


def mend(folder: Path, images_seen: int) -> int:
    """Cuts off what lies after the checkpoint that a run goes on from.

    A file that not even names the run, because that was killed at once, would stop `wandb sync`: it is renamed.

    Args:
        folder: the run's own, with `wandb/` in it.
        images_seen: of the checkpoint; 0 for a run that starts anew.

    Returns:
        The last step that has been uploaded already and cannot be cut off; -1 for none.
    """
    uploaded = -1
    for file in sorted(folder.glob("wandb/*run-*/run-*.wandb")):
        data = file.read_bytes()
        if len(data) >= len(_HEADER) and not data.startswith(_HEADER):
            log.warning("%s is of an unknown format and stays as it is: W&B may show steps twice", file)
            continue
        records = list(_records(data))
        if file.parent.name.startswith("run-") or file.with_suffix(".wandb.synced").exists():
            uploaded = max([uploaded, *(record.step for record in records if record.step is not None)])
            continue
        late = [r.start for r in records if r.step is not None and (r.step > images_seen or images_seen == 0)]
        end = min(late, default=records[-1].end if records else 0)
        if any(record.names_run for record in records):
            os.truncate(file, end)
        else:
            file.rename(file.with_suffix(".wandb.broken"))
    return uploaded


def _records(data: bytes) -> Iterator[_Record]:
    """The whole records of a file, in order; they end where one is broken or cut short."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

    at, start, pieces = len(_HEADER), 0, list[bytes]()
    while at + _PIECE.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE.size:  # too little of the block for another piece
            at += left
            continue
        checksum, length, place = _PIECE.unpack_from(data, at)
        piece = data[at + _PIECE.size : at + _PIECE.size + length]
        if len(piece) < length or zlib.crc32(piece, zlib.crc32(bytes([place]))) != checksum:
            return
        if place in (_WHOLE, _FIRST):
            start, pieces = at, []
        pieces.append(piece)
        at += _PIECE.size + length
        if place in (_WHOLE, _LAST):
            record = Record.FromString(b"".join(pieces))
            step = record.history.step.num if record.HasField("history") else None
            yield _Record(start, at, step, record.HasField("run"))
