"""Dice loss of a mask."""

from torch import Tensor


def dice(logits: Tensor, target: Tensor, smooth: float = 1.0, over_batch: bool = False) -> Tensor:
    """1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s), p = sigmoid(logits).

    Source: Milletari et al., 3DV 2016 (V-Net), with sums of p and y instead of their squares, smoothed.

    Args:
        logits, target: [N, h, w], target in [0, 1]. One Dice a sample and their mean.
        over_batch: one of all pixels together.
    """
    p = logits.float().sigmoid().flatten(1)
    y = target.float().flatten(1)
    if over_batch:
        p, y = p.reshape(1, -1), y.reshape(1, -1)
    return (1 - (2 * (p * y).sum(1) + smooth) / (p.sum(1) + y.sum(1) + smooth)).mean()
