"""Cross entropy of enlarged logits, without a map of full size for any name."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rislab.nn.enlarging import between, neighbours

Where = tuple[Tensor, Tensor, Tensor]


def enlarged_cross_entropy(logits: Tensor, labels: Tensor, ignored: int | None, rows_at_once: int = 32) -> Tensor:
    """Mean cross entropy over labelled pixels of logits that are enlarged bilinearly, corners aligned, to the labels' size.

    The picture is gone through in bands of rows; a band is made again for its gradient. So a step holds logits at the network's
    stride, and of full size those of one band. 0 where no pixel is labelled; the official losses are NaN there.

    Args:
        logits: [B, N, h, w], float32 whatever autocast says.
        labels: [B, H, W], whole numbers below N.
        ignored: Label that counts nowhere; None where all count.
        rows_at_once: Rows of a band.
    """
    with torch.autocast(logits.device.type, enabled=False):
        values = logits.float()
        height, width = labels.shape[-2:]
        first, second, share = neighbours(height, values.shape[-2], values.device)
        columns = neighbours(width, values.shape[-1], values.device)
        total = values.new_zeros(())
        for at in range(0, height, rows_at_once):
            band = slice(at, at + rows_at_once)
            rows = (first[band], second[band], share[band])
            total = total + checkpoint(
                _band, values, labels[:, band], rows, columns, -100 if ignored is None else ignored, use_reentrant=False
            )
        counted = labels.numel() if ignored is None else (labels != ignored).sum().clamp_min(1)
        return total / counted


def _band(logits: Tensor, labels: Tensor, rows: Where, columns: Where, ignored: int) -> Tensor:
    """Summed cross entropy of some rows of the labels."""
    large = between(between(logits, 2, rows), 3, columns)
    return F.cross_entropy(large, labels.long(), ignore_index=ignored, reduction="sum")
