"""AdamW and the learning rate of the official code (train.py, utils/optimizer.py, utils/lr_scheduler.py)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over the start of a cosine that begins with the run.

    Attributes:
        base_lr: highest rate.
        min_lr: at the end.
        warmup_lr: at the first step.
        warmup_steps: optimiser steps of the warm-up.
        weight_decay: AdamW's; vectors (norms, biases) have none. The official code decays 0-d parameters, the temperatures.
    """

    base_lr: float
    min_lr: float
    warmup_lr: float
    warmup_steps: int
    weight_decay: float

    def optimiser(self, parameters: Iterable[Parameter], steps: int) -> OptimizerLRScheduler:
        """steps: optimiser steps of the whole run."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim != 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.base_lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.factor(step, steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def factor(self, step: int, steps: int) -> float:
        """The rate of a step over the highest."""
        if step < self.warmup_steps:
            first = self.warmup_lr / self.base_lr
            return first + (1 - first) * step / self.warmup_steps
        low = self.min_lr / self.base_lr
        return low + (1 - low) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2
