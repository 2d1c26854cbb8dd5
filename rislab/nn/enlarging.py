"""Twice the size, bilinear with aligned corners, and what can be computed before it.

Enlarging is a weighted sum of up to four neighbours, so it commutes with everything linear in a pixel's channels. Cosines are
not linear, but their parts can be had at the small size: inner products with a text are, and the squared length of an enlarged
pixel is a quadratic form of the inner products between neighbours. A loss that is a mean over pixels needs a few rows at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

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


def between(x: Tensor, dim: int, where: Where) -> Tensor:
    """Values of a tensor at points between its entries along one dimension; `where` as from `neighbours`."""
    first, second, share = where
    shape = [1] * x.ndim
    shape[dim] = -1
    return torch.lerp(x.index_select(dim, first), x.index_select(dim, second), share.view(shape).to(x.dtype))


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
    own = pixels.square().sum(1)
    right = _inner(pixels[..., :-1], pixels[..., 1:])
    below = _inner(pixels[..., :-1, :], pixels[..., 1:, :])
    diagonal = _inner(pixels[..., :-1, :-1], pixels[..., 1:, 1:]) + _inner(pixels[..., :-1, 1:], pixels[..., 1:, :-1])
    columns = neighbours(2 * width, width, pixels.device)
    rows = neighbours(2 * height, height, pixels.device)
    within = _quadratic(own, right, 2, columns)  # of rows as they are, [B, h, 2w]
    across = _quadratic(below, diagonal / 2, 2, columns)  # of each row with the next, [B, h - 1, 2w]
    return _quadratic(within, across, 1, rows)[:, None]


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1)


def _quadratic(own: Tensor, pairs: Tensor, dim: int, where: Where) -> Tensor:
    """|(1 - f) a + f b|^2 of neighbours a, b along a dimension, from a.a, b.b (`own`) and a.b (`pairs`)."""
    first, second, share = where
    shape = [1] * own.ndim
    shape[dim] = -1
    f = share.view(shape).to(own.dtype)
    a, b, ab = own.index_select(dim, first), own.index_select(dim, second), pairs.index_select(dim, first)
    return (1 - f).square() * a + f.square() * b + 2 * f * (1 - f) * ab


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
