"""What a process that plays one job of a sweep has to do with that sweep: it reports, and is told whether to go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

# The sweep's process id, the number of the file that leads to it, and whether the job was started before.
SWEEP = "GANFORGE_SWEEP"
_sweep: _Sweep | None = None


class _Sweep:
    """The process that started this one: messages are lines of JSON, and each evaluation is answered by one."""

    def __init__(self, channel: socket.socket, again: bool) -> None:
        self.again = again
        self._channel = channel
        self._answers = channel.makefile("r", encoding="utf-8")

    def tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._channel.sendall((json.dumps(message) + "\n").encode())
        except OSError:  # the sweep is gone, and this process ends after its round
            return

    def ask(self, message: Mapping[str, Any]) -> Any:
        """The answer; None where the sweep is gone."""
        self.tell(message)
        try:
            line = self._answers.readline()
        except OSError:
            return None
        return json.loads(line) if line else None


def join_the_sweep() -> None:
    """Where this process is a job of one: it reports there, and stops its run when the sweep is gone."""
    global _sweep
    # Processes that are started from here are no jobs.
    said = os.environ.pop(SWEEP, None)
    if said is None:
        _sweep = None
        return
    sweep, number, again = map(int, said.split(":"))
    os.set_inheritable(number, False)
    _sweep = _Sweep(socket.socket(fileno=number), bool(again))

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def is_job_of_a_sweep() -> bool:
    return _sweep is not None


def is_started_again() -> bool:
    """Whether this process is a job that goes on with the run in its folder."""
    return _sweep is not None and _sweep.again


def tell_the_sweep(**result: Any) -> bool:
    """Hands over what the job returned, or its error; False where this process is no job of a sweep."""
    if _sweep is not None:
        _sweep.tell(result)
    return _sweep is not None


def goes_on(scores: Mapping[str, float], images_seen: int) -> bool:
    """Reports an evaluation to the sweep, and waits for its word on whether the run is worth going on with."""
    if _sweep is None:
        return True
    answer = _sweep.ask({"scores": dict(scores), "images_seen": images_seen})
    if (
        answer is None
    ):  # the sweep is gone; when it is there again it hears of this evaluation, and of no later one
        signal.raise_signal(signal.SIGTERM)
        return True
    return bool(answer["goes_on"])
