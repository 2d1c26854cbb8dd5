"""Tensors of all processes of a run, with gradients; on one process, what was given."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def world() -> tuple[int, int]:
    """(rank, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gathered(x: Tensor) -> Tensor:
    """[B, ...] of each process, B the same everywhere -> [processes * B, ...], by rank.

    A gradient that reaches another process's rows is sent there and summed up.
    """
    return torch.cat(all_gather(x.contiguous())) if world()[1] > 1 else x
