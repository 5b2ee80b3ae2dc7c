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


def is_job_of_a_sweep() -> bool:
    return SWEEP in os.environ


def tell_the_sweep(**result: Any) -> bool:
    """Hands over what the job returned, or its error; False where this process is no job of a sweep."""
    if RESULT not in os.environ:
        return False
    Path(os.environ[RESULT]).write_text(json.dumps(result))
    return True


def end_with_the_sweep() -> None:
    """The run stops after its round when the sweep is gone."""
    sweep = int(os.environ.get(SWEEP, 0))

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    if sweep:
        threading.Thread(target=watch, daemon=True).start()
