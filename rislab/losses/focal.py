"""Focal loss of a mask."""

import torch.nn.functional as F
from torch import Tensor


def focal(logits: Tensor, target: Tensor, alpha: float = 0.65, gamma: float = 2.0) -> Tensor:
    """Mean over pixels of -alpha_t (1 - p_t)^gamma log p_t.

    weighed by the target, which is the binary form where it is 0 or 1.
    Source: Lin et al., ICCV 2017, equation 5.

    Args:
        logits, target: one shape, target in [0, 1]; alpha weighs foreground, 1 - alpha background. For soft targets both terms
            are
    """
    logits, target = logits.float(), target.float()
    p = logits.sigmoid()
    foreground = alpha * (1 - p) ** gamma * F.logsigmoid(logits)
    background = (1 - alpha) * p**gamma * F.logsigmoid(-logits)
    return -(target * foreground + (1 - target) * background).mean()
