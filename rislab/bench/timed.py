"""Time, memory and operations of a piece of work in this process."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from torch import nn

from rislab.bench.operations import counted, matrix_rate
from rislab.bench.resident_memory import peak, start_of_peak
from rislab.nn.matrix_products import fast_products

Found = TypeVar("Found")


def timed(
    work: Callable[[], Found], counts: bool = False, fast: nn.Module | None = None
) -> tuple[Found, dict[str, float]]:
    """Do a piece of work twice, and once more where its operations are counted.

    Args:
        work: After a small one of its kind, whose memory is there already.
        counts: Whether to do it again under a counter.
        fast: The network, where its products go the way that they go in training and evaluation; see `fast_products`.

    Returns:
        What it gives, and `seconds`, of the clock; `cpu_seconds`, of all threads, which other programs of the machine hardly
        change, both of the second run, since libraries prepare themselves for each new size in the first; `grown_mb`, MiB of
        resident memory at the peak of the first over what was there before; where it is counted, `gflop`, and `matrix_rate`,
        GFLOP a CPU second of this machine in products of matrices.
    """
    with nullcontext() if fast is None else fast_products(fast):
        before = start_of_peak()
        work()
        grown = peak() - before
        began, worked = time.perf_counter(), time.process_time()
        found = work()
        cost = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked, "grown_mb": grown}
    if counts:
        cost |= {"gflop": counted(work), "matrix_rate": matrix_rate()}
    return found, cost
