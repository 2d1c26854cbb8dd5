"""Processes that have paid the imports: forked from a server, as the pool's are."""

import multiprocessing
from multiprocessing.context import ForkServerContext

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
