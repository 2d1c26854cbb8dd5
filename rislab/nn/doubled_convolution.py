"""A convolution of a picture at twice its size by the nearest pixel, computed at the picture's own size.

Every pixel of a doubled picture stands in a 2 x 2 cell of equal values. Kernel entries that fall into one cell can be added up
before the convolution, separately for the four positions within a cell: a 3 x 3 kernel becomes four of 2 x 2, 16 products a
pixel of the small picture instead of 36. Zeros around the picture are cells, too. Exact up to rounding, in value and gradient.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor


def cells(size: int, position: int) -> list[int]:
    """How many neighbouring entries of a kernel's side fall into each cell, first to last.

    Args:
        size: Entries of the side, odd.
        position: Of the output within its cell, 0 or 1.
    """
    at = [(position + entry - size // 2) // 2 for entry in range(size)]
    return [at.count(cell) for cell in range(at[0], at[-1] + 1)]


def folded(weight: Tensor) -> list[Tensor]:
    """A kernel [D, C, k, k], added up for the positions (0, 0), (0, 1), (1, 0), (1, 1): four of [D, C, n, n]."""
    entries = weight.permute(2, 3, 0, 1).contiguous()  # sums over a side of three are slow where it comes last
    size = len(entries)
    found = []
    for row in (0, 1):
        rows = torch.stack([_sum(part) for part in entries.split(cells(size, row))])  # [n, k, D, C]
        for column in (0, 1):
            parts = rows.transpose(0, 1).split(cells(size, column))
            found.append(torch.stack([_sum(part) for part in parts], dim=1).permute(2, 3, 0, 1))
    return found


def _sum(parts: Tensor) -> Tensor:
    """Over the first dimension, one after the other."""
    return reduce(torch.add, parts.unbind())


def doubled_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(doubled x, weight, bias, padding=k // 2)`: [B, C, h, w] -> [B, D, 2h, 2w].

    Args:
        x: The small picture.
        weight: [D, C, k, k], k odd.
        bias: [D].
    """
    return interleaved(_positions(x, folded(weight), bias))


def _positions(x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
    """The four positions within the cells, each [B, D, h, w]."""
    height, width = x.shape[-2:]
    side = kernels[0].shape[-1]
    even = side % 2 == 0  # such a kernel has no middle: the second position looks one pixel further than the first
    return [
        F.conv2d(x, kernel, bias, padding=side // 2)[..., row : row + height, column : column + width]
        for kernel, (row, column) in zip(kernels, ((0, 0), (0, even), (even, 0), (even, even)), strict=True)
    ]


def interleaved(positions: Sequence[Tensor]) -> Tensor:
    """The four positions within the cells, each [B, D, h, w] -> [B, D, 2h, 2w], channels last in memory."""
    last = [position.permute(0, 2, 3, 1) for position in positions]
    rows = [torch.stack(last[first : first + 2], dim=3).flatten(2, 3) for first in (0, 2)]  # [B, h, 2w, D]
    return torch.stack(rows, dim=2).flatten(1, 2).permute(0, 3, 1, 2)
