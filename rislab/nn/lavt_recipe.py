"""How LAVT and DMMI, a fork of its code, are trained: groups of the optimiser, schedule, a warning for small batches."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

UNDECAYED = ("norm", "relative_position_bias_table")
"""Parts of the names of the trunk's parameters that get no weight decay; the decoder's norms do."""
LEAST_BATCH = 16
"""Below, training breaks down after an epoch (yz93/LAVT-RIS, issue 10: at least 16 in all)."""


def poly_adamw(
    named: Iterable[tuple[str, nn.Parameter]],
    trunk: tuple[str, ...],
    lr: float,
    weight_decay: float,
    steps: int,
    power: float,
    warmup: int,
) -> OptimizerLRScheduler:
    """AdamW, and the rate lr (1 - step / steps) ** power, which rises linearly to that within the first steps.

    Args:
        named: Parameters by name; those without a gradient are left out.
        trunk: Beginnings of the names of the trunk, in which norms and bias tables are not decayed.
        lr: Rate of the first step.
        weight_decay: Of all others.
        steps: Optimiser steps of the whole training.
        power: Of the schedule.
        warmup: Steps of the rise; 0 officially.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in named:
        if parameter.requires_grad:
            groups[not (name.startswith(trunk) and any(part in name for part in UNDECAYED))].append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": found, "weight_decay": weight_decay * decayed} for decayed, found in groups.items()],
        lr=lr,
        fused=True,
    )

    def share(step: int) -> float:
        return float(min(1.0, (step + 1) / max(1, warmup)) * max(0.0, 1 - step / steps) ** power)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warn_of_a_small_batch(trainer: Any) -> None:
    """Warn when fewer than `LEAST_BATCH` queries make a step: queries a process, times processes, times accumulated batches."""
    queries = getattr(trainer.datamodule, "batch_size", None)
    if queries is None:
        return
    together = queries * trainer.world_size * trainer.accumulate_grad_batches
    if together < LEAST_BATCH:
        rank_zero_warn(
            f"{together} queries a step: with fewer than {LEAST_BATCH} in all, LAVT's authors saw training break down; raise "
            "data.init_args.batch_size, trainer.devices or trainer.accumulate_grad_batches (which does not enlarge what batch "
            "norm sees)"
        )
