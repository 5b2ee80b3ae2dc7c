"""What torchrun, or what sets the same variables, says of this process."""

from __future__ import annotations

import os


def started_together() -> int:
    """How many processes share this command, all started already; 1 where this one may start others itself."""
    return int(os.environ["WORLD_SIZE"]) if "WORLD_SIZE" in os.environ and "RANK" in os.environ else 1


def comes_after_the_first() -> bool:
    """Whether this is one of several processes, and another one is the first."""
    return started_together() > 1 and os.environ["RANK"] != "0"


def was_restarted() -> bool:
    """Whether torchrun starts these processes again, as one of them failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
