"""Twice the size, bilinear with aligned corners, and what can be computed before it.

Enlarging is a weighted sum of up to four neighbours, so it commutes with everything linear in a pixel's channels. Cosines are
not linear, but their parts can be had at the small size: inner products with a text are, and the squared length of an enlarged
pixel is a quadratic form of the inner products between neighbours. A loss that is a mean over pixels needs a few rows at a time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Where = tuple[Tensor, Tensor, Tensor]
"""Where points of an enlarged side come from; see `neighbours`."""


def enlarged(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, 2h, 2w]."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def neighbours(large: int, small: int, device: torch.device | None = None) -> Where:
    """Where points of an enlarged side come from.

    Args:
        large, small: Lengths of the side, 1 or more.
        device: Of the result.

    Returns:
        The neighbour before each point, int64 [large]; the one behind it; the share of the latter, float32 in [0, 1].
    """
    at = torch.arange(large, device=device, dtype=torch.float64) * ((small - 1) / max(1, large - 1))
    before = at.floor().clamp(max=max(0, small - 2))
    first = before.long()
    return first, (first + 1).clamp(max=small - 1), (at - before).float()


def enlarged_cosines(pixels: Tensor, texts: Tensor) -> Tensor:
    """Cosines of enlarged pixels with texts, without enlarging the pixels: a quarter of the products, no map of all channels.

    Args:
        pixels: [B, C, h, w], any length.
        texts: Unit vectors [N, C], the same for all pictures, or [B, N, C].

    Returns:
        [B, N, 2h, 2w].
    """
    form = "bchw,nc->bnhw" if texts.ndim == 2 else "bchw,bnc->bnhw"
    products = enlarged(torch.einsum(form, pixels, texts))
    return products * squared_lengths(pixels).clamp_min(1e-12).rsqrt()


def squared_lengths(pixels: Tensor) -> Tensor:
    """Squared lengths of enlarged pixels: [B, C, h, w] -> [B, 1, 2h, 2w]."""
    height, width = pixels.shape[-2:]
    if min(height, width) < 2:
        return enlarged(pixels).square().sum(1, keepdim=True)
    rows = pixels.permute(0, 2, 3, 1)  # [B, h, w, C]
    # All pairs of two rows are more products than needed, but one matrix product; pairs alone would go over all channels ten
    # times, and once more for each gradient.
    same, next_row = rows @ rows.mT, rows[:, :-1] @ rows[:, 1:].mT  # [B, h, w, w], [B, h - 1, w, w]
    own, right, below = (same.diagonal(0, 2, 3), same.diagonal(1, 2, 3), next_row.diagonal(0, 2, 3))
    diagonal = next_row.diagonal(1, 2, 3) + next_row.diagonal(-1, 2, 3)
    columns = neighbours(2 * width, width, pixels.device)
    lines = neighbours(2 * height, height, pixels.device)
    within = _quadratic(own, right, 2, columns)  # of rows as they are, [B, h, 2w]
    across = _quadratic(below, diagonal / 2, 2, columns)  # of each row with the next, [B, h - 1, 2w]
    return _quadratic(within, across, 1, lines)[:, None]


def _quadratic(own: Tensor, pairs: Tensor, dim: int, where: Where) -> Tensor:
    """|(1 - f) a + f b|^2 of neighbours a, b along a dimension, from a.a, b.b (`own`) and a.b (`pairs`)."""
    first, second, share = where
    shape = [1] * own.ndim
    shape[dim] = -1
    f = share.view(shape).to(own.dtype)
    a, b, ab = own.index_select(dim, first), own.index_select(dim, second), pairs.index_select(dim, first)
    return (1 - f).square() * a + f.square() * b + 2 * f * (1 - f) * ab


def enlarged_cross_entropy(logits: Tensor, labels: Tensor, ignored: int | None, rows_at_once: int = 8) -> Tensor:
    """Mean cross entropy over labelled pixels of logits that are enlarged bilinearly, corners aligned, to the labels' size.

    The picture is gone through in bands of rows, and a band's gradient is made with its value. So a step holds logits and their
    gradient at the network's stride, and of full size those of one band. 0 where no pixel is labelled; the official losses are
    NaN there. There is no second derivative.

    Args:
        logits: [B, N, h, w], float32 whatever autocast says.
        labels: [B, H, W], whole numbers below N.
        ignored: Label that counts nowhere; None where all count.
        rows_at_once: Rows of a band.
    """
    with torch.autocast(logits.device.type, enabled=False):
        total = _SumOfBands.apply(logits.float(), labels, -100 if ignored is None else ignored, rows_at_once)
        counted = labels.numel() if ignored is None else (labels != ignored).sum().clamp_min(1)
        return total / counted


class _SumOfBands(torch.autograd.Function):
    """Summed cross entropy of enlarged logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignored: int, rows_at_once: int) -> Tensor:
        height, small = labels.shape[-2], logits.shape[-2]
        first, second, share = neighbours(height, small, logits.device)
        weights = logits.new_zeros(height, small)  # of the rows, [H, h]
        weights.scatter_add_(1, first[:, None], 1 - share[:, None])
        weights.scatter_add_(1, second[:, None], share[:, None])
        by_row = logits.detach().transpose(1, 2).contiguous()  # [B, h, N, w]
        gradient = torch.zeros_like(by_row) if ctx.needs_input_grad[0] else None
        total = logits.new_zeros(())
        for top in range(0, height, rows_at_once):
            end = min(top + rows_at_once, height)
            used = slice(top * (small - 1) // max(1, height - 1), (end - 1) * (small - 1) // max(1, height - 1) + 2)
            band = by_row[:, used].detach().requires_grad_(gradient is not None)
            with torch.set_grad_enabled(gradient is not None):
                loss = _band(band, weights[top:end, used], labels[:, top:end], ignored)
            total += loss.detach()
            if gradient is not None:
                gradient[:, used] += torch.autograd.grad(loss, band)[0]
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad).transpose(1, 2), None, None, None


def _band(logits: Tensor, weights: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Summed cross entropy of some rows of the labels.

    Args:
        logits: The rows that they lie between, [B, k, N, w].
        weights: Of these for each row of the labels, [r, k].
        labels: [B, r, W].
        ignored: Label that counts nowhere.
    """
    wide = F.interpolate(logits.flatten(0, 1), labels.shape[-1], mode="linear", align_corners=True)  # [B k, N, W]
    large = weights @ wide.view(len(labels), logits.shape[1], -1)  # [B, r, N W]
    large = large.view(-1, logits.shape[2], labels.shape[-1])
    return F.cross_entropy(large, labels.flatten(0, 1).long(), ignore_index=ignored, reduction="sum")
