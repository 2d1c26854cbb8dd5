"""Processes that have paid the imports: forked from a server, as the pool's are."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from typing import Any

PRELOAD = [
    "rislab.training.trial",
    "rislab.datamodules.referring",
    "tests.e2e.faulty",
    "tests.methods.every",
    "tests.data.small",
]


def forking() -> ForkServerContext:
    """The server is one for a whole test process; the first caller says what it has imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def on_ranks(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run ``function(rank, *arguments)`` in `count` processes at once; every one of them must end well."""
    processes = [forking().Process(target=function, args=(rank, *arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    left = list(processes)
    while left:
        ended = wait([process.sentinel for process in left])
        left = [process for process in left if process.sentinel not in ended]
        if any(process.exitcode for process in processes if process.sentinel in ended):
            for process in left:  # they would wait for the one that is gone
                process.kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
