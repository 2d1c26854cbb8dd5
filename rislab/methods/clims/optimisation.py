"""CLIMS's optimiser: SGD with two rates, which fall to 0 as a power of the steps that are left (official code)."""

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

POWER = 0.9
"""Of the rates' fall to 0."""


def configured(
    model: nn.Module,
    head: nn.Module,
    lr: float,
    head_lr: float,
    momentum: float,
    weight_decay: float,
    steps: int,
) -> OptimizerLRScheduler:
    """Optimiser and schedule as Lightning takes them.

    Args:
        model: The network, whose parameters with a gradient are trained.
        head: A part of it.
        lr: Rate of all but the head.
        head_lr: Rate of the head.
        momentum: SGD's.
        weight_decay: SGD's.
        steps: Of the whole run.
    """
    of_head = {id(parameter) for parameter in head.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in of_head], "lr": lr},
        {"params": [p for p in trained if id(p) in of_head], "lr": head_lr},
    ]
    optimiser = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps) ** POWER)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
