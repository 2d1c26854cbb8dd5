"""Label maps of GroupViT by sliding windows, without scores of all classes at all pixels.

The official code, with mmsegmentation 0.x, holds pixels x groups x classes of each window, and pixels x classes of the picture.
Here a pixel has the number of its group, a window a table of its groups' scores, and only pixels between two groups are computed
class by class. The labels are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rislab.data.batch import Viewing
from rislab.methods.groupvit.inference import EncodedImages, group_of_pixels
from rislab.nn.sliding import Box, boxes


@dataclass(frozen=True)
class Window:
    """What one window says.

    Attributes:
        box: where it lies in the picture.
        groups: number of each pixel's group, int64 [h, w].
        table: scores of each group, [G, K], background included.
    """

    box: Box
    groups: Tensor
    table: Tensor


def combined(windows: Sequence[Window], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What pixels belong to in all windows that see them.

    Returns:
        Number of each pixel's combination of groups, int64 [H, W], and the mean scores of each combination, [n, K].
    """
    code = torch.zeros(size, dtype=torch.int64, device=windows[0].groups.device)
    total = windows[0].table.new_zeros(1, windows[0].table.shape[1])
    seen = total.new_zeros(1, 1)
    for window in windows:
        y1, y2, x1, x2 = window.box
        options = len(window.table) + 1  # not seen, or one of the groups
        code *= options
        code[y1:y2, x1:x2] += window.groups + 1
        there = torch.zeros(len(total) * options, dtype=torch.bool, device=code.device)
        there[code.flatten()] = True
        kept = there.nonzero()[:, 0]
        code = (there.cumsum(0) - 1)[code]
        before, group = kept // options, kept % options
        own = torch.cat([torch.zeros_like(window.table[:1]), window.table])
        total, seen = total[before] + own[group], seen[before] + (group > 0)[:, None]
    return code, total / seen


def labels(code: Tensor, table: Tensor, size: tuple[int, int], at_once: int = 1 << 16) -> Tensor:
    """The class of each pixel, int64 [h0, w0], where scores [K, H, W] are enlarged bilinearly to [h0, w0] and the largest wins.

    Args:
        code: row of `table` of each pixel, int64 [H, W].
        table: scores [n, K].
        size: h0, w0.
        at_once: pixels whose scores are in memory together.
    """
    if tuple(code.shape) == tuple(size):  # nothing is enlarged: no pixel lies between two
        return table.argmax(1)[code]
    (y, y1, fy), (x, x1, fx) = (_neighbours(n, m, code.device) for n, m in zip(size, code.shape, strict=True))
    corners = [code[rows][:, columns] for rows in (y, y1) for columns in (x, x1)]
    found = table.argmax(1)[corners[0]]
    mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
    at = mixed.nonzero()
    for some in at.split(at_once):
        wy, wx = fy[some[:, 0], None], fx[some[:, 1], None]
        a, b, c, d = (table[corner[some[:, 0], some[:, 1]]] for corner in corners)
        scores = (1 - wy) * ((1 - wx) * a + wx * b) + wy * ((1 - wx) * c + wx * d)
        found[some[:, 0], some[:, 1]] = scores.argmax(1)
    return found


def _neighbours(out: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels of `size` between which each of `out` places lies, and the share of the second; corners not aligned."""
    # In float32, as torch's own interpolation computes it.
    at = ((torch.arange(out, device=device) + 0.5) * (size / out) - 0.5).clamp_min(0)
    low = at.floor().long().clamp_max(size - 1)
    return low, (low + 1).clamp_max(size - 1), at - low


def label_picture(
    encode_window: Callable[[Tensor], EncodedImages],
    table: Callable[[EncodedImages], Tensor],
    image: Tensor,
    original_size: tuple[int, int],
    viewing: Viewing,
) -> Tensor:
    """The class of each pixel, int64 [h0, w0], of a picture [3, H, W] shown by windows.

    Args:
        encode_window: a window uint8 [1, 3, h, w] -> its encoding.
        table: an encoding -> scores [G, K], background included.
    """
    size = image.shape[-2], image.shape[-1]
    windows = []
    for box in boxes(*size, viewing.window, viewing.stride):
        y1, y2, x1, x2 = box
        encoded = encode_window(image[None, :, y1:y2, x1:x2])
        windows.append(Window(box, group_of_pixels(encoded)[0], table(encoded)))
    code, scores = combined(windows, size)
    return labels(code, scores, original_size)
