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

from ganforge.commands.errors import UserError
from ganforge.evaluation.ranks import Ranks

log = logging.getLogger("ganforge")

_HOST = "127.0.0.1"
_TIMEOUT = timedelta(
    hours=24
)  # ranks wait for the one that reads or computes; a dead one is noticed otherwise


@contextlib.contextmanager
def sharing(processes: int) -> Iterator[Ranks]:
    """This process among `processes` that run the same command line; those beside the first print nothing.

    Under torchrun, which has started them already, `processes` may stay 1.

    Raises:
        UserError: a number that makes no sense.
    """
    if processes < 1:
        raise UserError(f"processes={processes} must be at least 1")
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=_TIMEOUT)
        others: list[subprocess.Popen[bytes]] = []
    elif processes == 1:
        yield Ranks()
        return
    else:
        others = _start(processes)
    ranks = Ranks.current()
    torch.set_num_threads(max(1, torch.get_num_threads() // ranks.size))
    if ranks.rank:
        log.setLevel(logging.CRITICAL)
    done = threading.Event()
    if others:
        threading.Thread(target=_watch, args=(others, done), daemon=True).start()
    try:
        yield ranks
        done.set()
        dist.barrier()
    finally:
        done.set()
        if sys.exc_info()[0] is not None:
            for other in others:
                other.terminate()
        for other in others:
            other.wait()
        dist.destroy_process_group()


def _start(processes: int) -> list[subprocess.Popen[bytes]]:
    """Starts this command line once more for every further process, and joins them."""
    store = TCPStore(_HOST, 0, processes, is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
    common = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store runs already: rank 0 need not open one
    }
    command = [sys.executable, "-m", "ganforge", *sys.argv[1:]]
    others = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(1, processes)
    ]
    dist.init_process_group(
        "gloo", store=PrefixStore("default_pg", store), rank=0, world_size=processes, timeout=_TIMEOUT
    )
    return others


def _watch(others: list[subprocess.Popen[bytes]], done: threading.Event) -> None:
    """Ends this process when another dies: it would wait for ever for what that one was to give."""
    while not done.wait(0.5):
        dead = [i for i, other in enumerate(others, start=1) if other.poll() not in (None, 0)]
        if dead:
            time.sleep(1)  # an error that all ranks meet is said by this one
            if done.is_set():
                return
            for other in others:
                other.kill()
            print(
                f"ganforge: process {dead[0]} of {len(others) + 1} died; nothing was written", file=sys.stderr
            )
            os._exit(1)
