"""Label maps at several scales, each with its mirror image.

Source: PyTorch-Encoding, `MultiEvalModule`, as LSeg is scored on ADE20K (specification in its `test_lseg.py`). It differs from
`rislab.nn.sliding` in three points: a window that would pass the border is cut there and padded, not shifted back; what is padded
is black; every enlargement aligns corners.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rislab.nn.sliding import Box

WindowScores = Callable[[Tensor], Tensor]
"""A square window [1, 3, S, S], values 0 to 255 -> scores [1, C, h, w] at the network's own stride."""


@dataclass(frozen=True)
class MultiScale:
    """How a picture is shown.

    Attributes:
        long_side: Pixels of the long side at scale 1.
        scales: Factors of it.
        window: Side of the square that the network sees.
        stride: Pixels between two windows.
        mirror: Whether each window is also shown mirrored, and its scores added.
    """

    long_side: int
    scales: tuple[float, ...]
    window: int
    stride: int
    mirror: bool = True


def scaled_size(height: int, width: int, long: int) -> tuple[int, int]:
    """Size whose long side is `long`, ratio kept, the short side rounded."""
    if height > width:
        return long, int(width * long / height + 0.5)
    return int(height * long / width + 0.5), long


def padded(picture: Tensor, height: int, width: int) -> Tensor:
    """[1, 3, h, w] with black to the right and below, up to a height and a width."""
    return F.pad(picture, (0, max(0, width - picture.shape[-1]), 0, max(0, height - picture.shape[-2])))


def windows(height: int, width: int, window: int, stride: int) -> Iterator[Box]:
    """Boxes of windows that start at multiples of the stride and end at the border."""
    rows = math.ceil((height - window) / stride) + 1
    columns = math.ceil((width - window) / stride) + 1
    for y in range(0, rows * stride, stride):
        for x in range(0, columns * stride, stride):
            yield y, min(y + window, height), x, min(x + window, width)


def enlarged(scores: Tensor, height: int, width: int) -> Tensor:
    """[1, C, h, w] -> [1, C, height, width], bilinear with corners aligned."""
    if scores.shape[-2:] == (height, width):
        return scores
    return F.interpolate(scores, (height, width), mode="bilinear", align_corners=True)


def multi_scale_labels(
    score_window: WindowScores, image: Tensor, original_size: tuple[int, int], view: MultiScale
) -> Tensor:
    """The class of each pixel, int64 [h0, w0]: scores summed over scales and mirror images, the largest wins.

    Args:
        score_window: The network.
        image: [3, H, W], values 0 to 255.
        original_size: (h0, w0) of the label map.
        view: Scales and windows.

    Returns:
        Labels. The scores of all classes exist at the original size once, and at the size of one scale once.
    """
    total: Tensor | None = None
    for scale in view.scales:
        height, width = scaled_size(image.shape[-2], image.shape[-1], math.ceil(view.long_side * scale))
        picture = F.interpolate(image[None].float(), (height, width), mode="bilinear", align_corners=True)
        scores = enlarged(_scores(score_window, picture, view), *original_size)
        total = scores if total is None else total.add_(scores)
    assert total is not None, "one scale at least"
    return total[0].argmax(0)


def _scores(score_window: WindowScores, picture: Tensor, view: MultiScale) -> Tensor:
    """Scores [1, C, h, w] of a picture [1, 3, h, w] at one scale."""
    height, width = picture.shape[-2:]
    side = view.window
    if max(height, width) <= side:
        return _both(score_window, padded(picture, side, side), view.mirror)[..., :height, :width]
    canvas = padded(picture, side, side)
    total = seen = None
    for y1, y2, x1, x2 in windows(canvas.shape[-2], canvas.shape[-1], side, view.stride):
        found = _both(score_window, padded(canvas[..., y1:y2, x1:x2], side, side), view.mirror)
        if total is None or seen is None:
            total = found.new_zeros(1, found.shape[1], *canvas.shape[-2:])
            seen = found.new_zeros(1, 1, *canvas.shape[-2:])
        total[..., y1:y2, x1:x2] += found[..., : y2 - y1, : x2 - x1]
        seen[..., y1:y2, x1:x2] += 1
    assert total is not None
    assert seen is not None
    return (total / seen)[..., :height, :width]


def _both(score_window: WindowScores, window: Tensor, mirror: bool) -> Tensor:
    """Scores [1, C, S, S] of a window, with those of its mirror image added: before enlarging, which commutes with both."""
    found = score_window(window).float()
    if mirror:
        found = found + score_window(window.flip(-1)).float().flip(-1)
    return enlarged(found, *window.shape[-2:])
