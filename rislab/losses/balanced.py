"""Cross entropy in which background and classes weigh the same, however many pixels they have."""

import torch
import torch.nn.functional as F
from torch import Tensor


def balanced_cross_entropy(logits: Tensor, labels: Tensor, ignored: int = 255) -> Tensor:
    """The mean over background pixels plus the mean over all others, halved.

    Source: CVI-SZU/CLIMS, segmentation/deeplabv2/main_v2.py, for ImageNet weights. Where a batch has none of one kind the code
    gives NaN; here it is the mean over the other kind, and 0 where everything is ignored.

    Args:
        logits: [B, C, h, w], background first.
        labels: int64 [B, h, w], 0 background.
        ignored: Label of pixels that do not count.

    Returns:
        A scalar.
    """
    each = F.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="none")
    kinds = labels == 0, (labels != 0) & (labels != ignored)
    means = torch.stack([(each * kind).sum() / kind.sum().clamp(min=1) for kind in kinds])
    there = torch.stack([kind.any() for kind in kinds])
    return means.sum() / there.sum().clamp(min=1)


def mean_cross_entropy(logits: Tensor, labels: Tensor, ignored: int = 255) -> Tensor:
    """The mean over all pixels that count; 0 where none does. Arguments as of `balanced_cross_entropy`."""
    each = F.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="sum")
    return each / (labels != ignored).sum().clamp(min=1)
