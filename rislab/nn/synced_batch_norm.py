"""Batch norm whose statistics are those of all processes, on any device."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rislab.ranks import world


class _Sum(torch.autograd.Function):
    """The sum of x over all processes; a gradient that reaches it in any process reaches x in every one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm(nn.BatchNorm1d):
    """Batch norm of [N, C] over the rows of all processes; torch's own needs a GPU.

    Mean and variance of a training step are those of one process that has all rows, and so are gradients. Processes may have
    unequal numbers of rows. Computed in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] -> [N, C], float32."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if not self.training or world()[1] == 1:
                return super().forward(x)
            return self._of_all_processes(x)

    def _of_all_processes(self, x: Tensor) -> Tensor:
        rows = _Sum.apply(torch.full((1,), float(len(x)), device=x.device))
        mean = _Sum.apply(x.sum(0)) / rows
        centred = x - mean
        var = _Sum.apply(centred.square().sum(0)) / rows
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(var * rows / (rows - 1), self.momentum or 0.0)
        return centred * (var + self.eps).rsqrt() * self.weight + self.bias
