"""Refinement of activation maps by a random walk that does not cross boundaries (Ahn, Cho and Kwak, CVPR 2019: IRN).

The affinity of two pixels at stride 4 is 1 minus the largest boundary on the path between them. The official code squares a
dense transition matrix eight times; the maps are multiplied by it 2^8 times here, with the neighbours of each pixel alone:
the same numbers, and work that grows with the number of pixels, not with its cube.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Step = tuple[int, int]
"""Rows and columns from one pixel to another."""


@cache
def steps(radius: int = 5) -> tuple[Step, ...]:
    """Displacements shorter than the radius, one of each pair of opposite ones."""
    right = [(0, x) for x in range(1, radius)]
    down = [
        (y, x) for y in range(1, radius) for x in range(-radius + 1, radius) if x * x + y * y < radius * radius
    ]  # fmt: skip
    return (*right, *down)


@cache
def path(step: Step) -> tuple[Step, ...]:
    """Grid points in the bounding box of a displacement that lie less than a pixel from its line, both ends included."""
    dy, dx = step
    rows = range(dy + 1)
    columns = range(min(0, dx), max(0, dx) + 1)
    return tuple((y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx)


def affinities(boundary: Tensor, radius: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of pixels and their affinity.

    Args:
        boundary: [h, w] in [0, 1].
        radius: Pixels of a pair are nearer than this.

    Returns:
        First and second pixel of each pair, int64 [n], numbered row by row, and the affinity, [n]. A pair is there once;
        pairs that leave the picture are not there.
    """
    height, width = boundary.shape
    reach = radius - 1
    padded = F.pad(boundary, (reach, reach, 0, reach), value=1.0)
    number = torch.arange(height * width, device=boundary.device).view(height, width)

    def moved(step: Step) -> Tensor:
        dy, dx = step
        return padded[dy : dy + height, reach + dx : reach + dx + width]

    first, second, found = [], [], []
    for dy, dx in steps(radius):
        rows, columns = slice(0, max(0, height - dy)), slice(max(0, -dx), width - max(0, dx))
        here = number[rows, columns].flatten()
        first.append(here)
        second.append(here + dy * width + dx)
        crossed = torch.stack([moved(each)[rows, columns] for each in path((dy, dx))]).amax(0)
        found.append(1 - crossed.flatten())
    return torch.cat(first), torch.cat(second), torch.cat(found)


def transition(boundary: Tensor, beta: float, radius: int = 5) -> Tensor:
    """Sparse [N, N]: what each pixel takes of others in a step, rows summing to 1. A pixel's affinity with itself is 1."""
    first, second, affinity = affinities(boundary, radius)
    count = boundary.numel()
    itself = torch.arange(count, device=boundary.device)
    rows, columns = torch.cat([first, second, itself]), torch.cat([second, first, itself])
    weight = torch.cat([affinity, affinity, torch.ones_like(itself, dtype=affinity.dtype)]) ** beta
    total = torch.zeros(count, dtype=weight.dtype, device=weight.device).index_add_(0, rows, weight)
    pairs = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(pairs, weight / total[rows], (count, count), check_invariants=False).coalesce()


def walked(maps: Tensor, boundary: Tensor, beta: float = 10.0, doublings: int = 8, radius: int = 5) -> Tensor:
    """Maps after a random walk of 2^doublings steps.

    Args:
        maps: [k, h, w] at stride 4.
        boundary: [h, w] in [0, 1].
        beta: Power of the affinity.
        doublings: How often the official code squares its matrix.
        radius: Of a step.

    Returns:
        [k, h, w].
    """
    matrix = transition(boundary, beta, radius)
    walking = (maps * (1 - boundary)).flatten(1).T.contiguous()  # [N, k]
    for _ in range(2**doublings):
        walking = torch.sparse.mm(matrix, walking)
    return walking.T.unflatten(1, tuple(boundary.shape))


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Walked maps [k, h, w] at the picture's size, four times as large and cut, divided by the largest value of all of them."""
    large = F.interpolate(maps[None], scale_factor=4, mode="bilinear", align_corners=False)[0, :, : size[0], : size[1]]
    return large / large.max() if large.numel() else large


def refined(maps: Tensor, boundary: Tensor, size: Sequence[int], beta: float = 10.0, doublings: int = 8) -> Tensor:
    """`walked`, then `enlarged`: [k, H, W] of maps [k, h, w]; size: H, W of the picture."""
    return enlarged(walked(maps, boundary, beta, doublings), (size[0], size[1]))
