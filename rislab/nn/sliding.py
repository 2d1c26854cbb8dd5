"""Label maps from a network that sees one window at a time.

Source: mmsegmentation 0.x, `slide_inference`, as TCL and GroupViT are scored: windows start at multiples of the stride, the last
one is shifted back to end at the border; scores are summed and divided by how many windows saw a pixel, brought to the original
size, and the largest wins.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Box = tuple[int, int, int, int]
"""y1, y2, x1, x2."""
Margins = tuple[int, int, int, int]
"""Pixels above, below, left and right of a window that its scores cover, too, because the network has padded it."""
NO_MARGINS: Margins = (0, 0, 0, 0)


def starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side."""
    count = max(size - window + stride - 1, 0) // stride + 1
    return [min(i * stride, max(size - window, 0)) for i in range(count)]


def boxes(height: int, width: int, window: int, stride: int) -> list[Box]:
    return [
        (y, min(y + window, height), x, min(x + window, width))
        for y in starts(height, window, stride)
        for x in starts(width, window, stride)
    ]


def cut(large: Tensor, margins: Margins) -> Tensor:
    """[..., H, W] without its margins."""
    above, below, left, right = margins
    return large[..., above : large.shape[-2] - below, left : large.shape[-1] - right]


def mean_of_windows(
    maps: Sequence[Tensor], where: Sequence[Box], size: tuple[int, int], margins: Margins = NO_MARGINS
) -> Tensor:
    """Maps [C, h, w] of windows, each at the network's own stride -> [C, H, W]. All windows of a picture are of one size."""
    above, below, left, right = margins
    if len(where) == 1:  # it shows the whole picture
        covered = size[0] + above + below, size[1] + left + right
        return cut(F.interpolate(maps[0][None], covered, mode="bilinear", align_corners=False)[0], margins)
    total = maps[0].new_zeros(len(maps[0]), *size)
    seen = maps[0].new_zeros(1, *size)
    for found, (y1, y2, x1, x2) in zip(maps, where, strict=True):
        covered = y2 - y1 + above + below, x2 - x1 + left + right
        large = F.interpolate(found[None], covered, mode="bilinear", align_corners=False)[0]
        total[:, y1:y2, x1:x2] += cut(large, margins)
        seen[:, y1:y2, x1:x2] += 1
    return total / seen


def label_map(
    score_window: Callable[[Tensor], tuple[Tensor, Margins]],
    image: Tensor,
    original_size: tuple[int, int],
    window: int,
    stride: int,
    classes_at_once: int = 8,
) -> Tensor:
    """The class of each pixel, int64 [h0, w0].

    Scores of all classes exist at the network's stride only (for a stride of 4: a sixteenth of the pixels); at full size there
    are those of `classes_at_once`, beside the best score so far.

    Args:
        ask: a window [1, 3, h, w] -> scores [1, C, h', w'] at the network's own stride, and their margins.
        image: [3, H, W].
    """
    where = boxes(image.shape[-2], image.shape[-1], window, stride)
    maps, margins = [], NO_MARGINS
    for y1, y2, x1, x2 in where:
        scores, margins = score_window(image[None, :, y1:y2, x1:x2])
        maps.append(scores[0])
    best = torch.full(original_size, -torch.inf, device=image.device)
    label = torch.zeros(original_size, dtype=torch.int64, device=image.device)
    size = image.shape[-2], image.shape[-1]
    for first in range(0, len(maps[0]), classes_at_once):
        some = [found[first : first + classes_at_once].float() for found in maps]
        scores = mean_of_windows(some, where, size, margins)
        large = scores
        if size != tuple(original_size):
            large = F.interpolate(scores[None], original_size, mode="bilinear", align_corners=False)[0]
        value, index = large.max(0)
        better = value > best  # a tie goes to the first class
        best = torch.where(better, value, best)
        label = torch.where(better, index + first, label)
    return label
