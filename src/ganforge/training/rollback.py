"""Going back to the last good checkpoint, and on from there with other settings: counted, and the same on a resume."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganforge.draws import derive_seed
from ganforge.evaluation.ranks import Ranks
from ganforge.training.checkpoint_file import AtomicCheckpointIO

GOOD = "good.ckpt"
LAST = "last.ckpt"


class GoBackError(Exception):
    """The run is to go on from its last good checkpoint; raised on all ranks after the same round."""


@dataclass(frozen=True)
class Rollbacks:
    """How often a run went back, and what differs since: a part of the run's state, in every checkpoint.

    Attributes:
        count: how often.
        learning_rate_factor: of both players' learning rates.
        seed: what the run's rounds draw from; None for the run's own seed.
    """

    count: int = 0
    learning_rate_factor: float = 1.0
    seed: int | None = None

    def further(self, learning_rate_factor: float, run_seed: int | None) -> Rollbacks:
        """After one more: rates lower by that factor, and another seed drawn from the run's where one is given."""
        count = self.count + 1
        seed = self.seed if run_seed is None else derive_seed(run_seed, "rollback", count)
        return Rollbacks(count, self.learning_rate_factor * learning_rate_factor, seed)


def mark_as_good(folder: Path) -> None:
    """What last.ckpt holds now is kept as good.ckpt, also when the next last.ckpt has taken its place.

    Raises:
        OSError: it cannot be.
    """
    last, new = folder / LAST, folder / f".{GOOD}.tmp"
    new.unlink(missing_ok=True)
    try:
        os.link(last, new)
    except OSError:  # a file system without links
        shutil.copyfile(last, new)
    os.replace(new, folder / GOOD)


def go_back(folder: Path, state_of_run: Mapping[str, Any]) -> tuple[Path, int]:
    """Makes good.ckpt, with the run's state of now, its last.ckpt: a resume goes on with the same settings.

    Returns:
        The checkpoint, and the images seen when it was written.

    Raises:
        OSError: it cannot be written; on every rank.
    """
    ranks = Ranks.current()
    failure: OSError | None = None
    images_seen = 0
    if ranks.rank == 0:
        files = AtomicCheckpointIO()
        try:
            state = files.load_checkpoint(folder / GOOD)
            images_seen = state["clock"]["images_seen"]
            files.save_checkpoint({**state, "ganforge": dict(state_of_run)}, folder / LAST)
        except OSError as error:
            failure = error
    failure, images_seen = ranks.from_first((failure, images_seen))
    if failure is not None:
        raise failure
    return folder / LAST, images_seen
