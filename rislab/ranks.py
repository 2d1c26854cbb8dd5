"""Tensors of all processes of a run, with gradients; on one process, what was given."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def mean(x: Tensor) -> Tensor:
    """Mean over the elements of x of all processes, a scalar without a gradient; processes may have unequal numbers of them."""
    if world()[1] == 1:
        return x.detach().mean()
    total = torch.stack(
        [x.detach().double().sum(), torch.tensor(float(x.numel()), dtype=torch.float64, device=x.device)]
    )
    dist.all_reduce(total)
    return (total[0] / total[1]).to(x.dtype)


class _Gather(torch.autograd.Function):
    """torch's own differentiable gather leaves gradients out on some backends (seen: gloo, torch 2.15), and is deprecated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def gathered(x: Tensor) -> Tensor:
    """[B, ...] of each process, B the same everywhere -> [processes * B, ...], by rank.

    A gradient that reaches another process's rows is sent there and summed up.
    """
    if world()[1] == 1:
        return x
    found: Tensor = _Gather.apply(x)
    return found
