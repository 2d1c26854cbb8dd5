"""Losses of LAVT and DMMI, whose pixels are of one of two classes: background and foreground.

Two-class logits matter by their difference alone: softmax's foreground is the sigmoid of it, and cross-entropy is softplus. So
these take mask logits, foreground minus background, and half as much is enlarged.
"""

import torch.nn.functional as F
from torch import Tensor

from rislab.losses.dice import dice


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits [N, h, w] -> [N, H, W], bilinear with aligned corners, as both methods' code has it."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits[:, None], size, mode="bilinear", align_corners=True)[:, 0]


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: tuple[float, float]) -> Tensor:
    """Cross-entropy over background and foreground, as a weighted mean: divided by the sum of the pixels' weights.

    Args:
        logits: [N, h, w], foreground minus background; enlarged to the target's size.
        target: [N, H, W] in [0, 1]; above 1/2 is foreground.
        weights: Of background and foreground pixels.

    Returns:
        A scalar.
    """
    large = enlarged(logits.float(), (target.shape[-2], target.shape[-1]))
    foreground = target > 0.5
    weight = foreground.float() * (weights[1] - weights[0]) + weights[0]
    each = F.softplus(large.where(~foreground, -large))
    return (weight * each).sum() / weight.sum()


def two_class_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of the Dice losses of foreground and background, each of a sample and averaged.

    Ours: LAVT's README has results with a "multi-class Dice loss" whose code was never released.

    Args:
        logits: [N, h, w], foreground minus background; enlarged to the target's size.
        target: [N, H, W] in [0, 1].

    Returns:
        A scalar.
    """
    large = enlarged(logits.float(), (target.shape[-2], target.shape[-1]))
    return (dice(large, target) + dice(-large, 1 - target)) / 2
