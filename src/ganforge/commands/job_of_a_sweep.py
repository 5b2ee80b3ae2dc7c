"""What a process that plays one job of a sweep has to do with that sweep."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

RESULT = "GANFORGE_JOB_RESULT"  # the file that the job leaves its result in
SWEEP = "GANFORGE_SWEEP"  # the sweep's process id
_result: Path | None = None


def join_the_sweep() -> None:
    """Where this process is a job of one: it leaves its result there, and stops its run when the sweep is gone."""
    global _result
    # Processes that are started from here are no jobs.
    file, sweep = os.environ.pop(RESULT, None), int(os.environ.pop(SWEEP, 0))
    _result = None if file is None else Path(file)

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    if sweep:
        threading.Thread(target=watch, daemon=True).start()


def is_job_of_a_sweep() -> bool:
    return _result is not None


def tell_the_sweep(**result: Any) -> bool:
    """Hands over what the job returned, or its error; False where this process is no job of a sweep."""
    if _result is not None:
        _result.write_text(json.dumps(result))
    return _result is not None
