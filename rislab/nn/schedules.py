"""Learning rates over a run, as shares of the highest; and which parameters are decayed."""

import math
from collections.abc import Iterable

from torch import Tensor


def warmed_cosine(step: int, steps: int, warmup: int, first: float, last: float, after_warmup: bool = True) -> float:
    """Linear warm-up, then half a cosine.

    Args:
        step: Optimiser steps done.
        steps: Of the whole run.
        warmup: Steps of the warm-up.
        first: Share at the first step, 0 to 1.
        last: Share at the end, 0 to 1.
        after_warmup: Whether the cosine begins where the warm-up ends; else with the run, so that the rate jumps.
    """
    if step < warmup:
        return first + (1 - first) * step / warmup
    start = warmup if after_warmup else 0
    done = (step - start) / max(1, steps - start)
    return last + (1 - last) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def decay_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, object]]:
    """Groups of an optimiser, empty ones left out: vectors (norms, biases) are not decayed, matrices and numbers are."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if p.ndim != 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
