"""A command that several processes share: started here, or by torchrun."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore

from ganforge.commands.errors import RunFailedError, UserError
from ganforge.evaluation.ranks import Ranks

log = logging.getLogger("ganforge")

_HOST = "127.0.0.1"
# Ranks wait for the one that reads or computes; a dead one is noticed otherwise.
_TIMEOUT = timedelta(hours=24)
_PATIENCE_SECONDS = 1.0


@contextlib.contextmanager
def sharing(processes: int) -> Iterator[Ranks]:
    """This process among `processes` that run the same command line; those beside the first print nothing.

    Under torchrun, which has started them already, `processes` may stay 1.

    Raises:
        UserError: a number that makes no sense.
        RunFailedError: another process died.
    """
    if processes < 1:
        raise UserError(f"processes={processes} must be at least 1")
    started = "WORLD_SIZE" in os.environ and "RANK" in os.environ
    if processes == 1 and not started:
        yield Ranks()
        return
    others: list[subprocess.Popen[bytes]] = []
    done = threading.Event()
    try:
        if started:
            threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
            dist.init_process_group("gloo", timeout=_TIMEOUT)
        else:
            threading.Thread(target=_watch, args=(others, done), daemon=True).start()
            _start(processes, others)
        ranks = Ranks.current()
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks.size))
        if torch.cuda.is_available():
            # device=cuda is then another GPU for each process, as far as there are several.
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if ranks.rank:
            log.setLevel(logging.CRITICAL)
        yield ranks
        done.set()
        dist.barrier()
    except UserError:
        if started and Ranks.current().rank:
            time.sleep(_PATIENCE_SECONDS)  # the first rank says it too, and ends this process
        raise
    except RuntimeError as error:
        if message := _death(others, wait_seconds=_PATIENCE_SECONDS):
            raise RunFailedError(message) from error
        raise
    finally:
        done.set()
        if sys.exc_info()[0] is not None:
            for other in others:
                other.terminate()
        for other in others:
            other.wait()
        if dist.is_initialized():
            dist.destroy_process_group()


def _start(processes: int, others: list[subprocess.Popen[bytes]]) -> None:
    """Starts this command line once more for every further process, kept in `others`, and joins them."""
    store = TCPStore(_HOST, 0, processes, is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
    common = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store runs already: rank 0 need not open one
    }
    command = [sys.executable, "-m", "ganforge", *sys.argv[1:]]
    for rank in range(1, processes):
        ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment = {**os.environ, **common, **ranked}
        others.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    dist.init_process_group(
        "gloo", store=PrefixStore("default_pg", store), rank=0, world_size=processes, timeout=_TIMEOUT
    )


def _watch(others: list[subprocess.Popen[bytes]], done: threading.Event) -> None:
    """Ends this process when another dies: it would wait for ever for what that one was to give."""
    while not done.wait(0.5):
        if message := _death(others):
            time.sleep(_PATIENCE_SECONDS)  # an error that all ranks meet is said by this one
            if done.is_set():
                return
            for other in others:
                other.kill()
            print(f"ganforge: {message}", file=sys.stderr)
            os._exit(1)


def _death(others: list[subprocess.Popen[bytes]], wait_seconds: float = 0) -> str:
    """Which of the others has died, in words; an empty string while none has."""
    deadline = time.monotonic() + wait_seconds
    while True:
        for i, other in enumerate(others, start=1):
            if other.poll() not in (None, 0):
                return f"process {i} of {len(others) + 1} died before the end"
        if not others or time.monotonic() >= deadline:
            return ""
        time.sleep(0.05)


def _follow(parent: int) -> None:
    """Ends this process when the one that started it is gone, however that one ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
