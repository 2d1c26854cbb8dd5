"""Which pixel lies where in the shifted windows of a Swin: index tables and masks, made once for each size of a map."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

APART = -100.0
"""Added to the attention logits of two pixels that only the cyclic shift has brought into one window, as officially."""


@dataclass(frozen=True, eq=False)
class Windows:
    """A map of H x W pixels, padded right and below to whole windows, then shifted, then cut into nW windows of N pixels.

    Attributes:
        order: int64 [nW * N], the pixel (row-major) at each place of the windows; H * W stands for padding.
        inverse: int64 [H * W], the inverse: where each pixel lies.
        padding: int64, the places that hold padding; None where there are none.
        mask: float32 [nW, 1, N, N], 0 or `APART`, broadcast over heads; None without a shift.
        count: nW.
    """

    order: Tensor
    inverse: Tensor
    padding: Tensor | None
    mask: Tensor | None
    count: int


@lru_cache(maxsize=128)
def windows(height: int, width: int, side: int, shift: int, device: torch.device) -> Windows:
    """The windows of a map. Neither window nor shift shrinks where the map is smaller than the window, unlike in timm's Swin.

    Args:
        height: H.
        width: W.
        side: Of a window, so that N is its square.
        shift: Rows and columns by which the padded map is rolled towards the upper left.
        device: Of the tables.
    """
    with torch.inference_mode(False):  # kept beyond an evaluation, whose tensors training could not use
        rows, columns = -(-height // side) * side, -(-width // side) * side
        pixels = torch.full((rows, columns), height * width)
        pixels[:height, :width] = torch.arange(height * width).view(height, width)
        order = _cut(pixels.roll((-shift, -shift), (0, 1)), side).flatten()
        is_padding = order == height * width
        inverse = torch.empty(height * width, dtype=torch.int64)
        inverse[order[~is_padding]] = torch.arange(len(order))[~is_padding]
        mask = None
        if shift:
            # Three bands in each direction: whole windows, then the last one, parted where the roll has put the beginning.
            down, across = (
                (torch.arange(n) >= n - side).long() + (torch.arange(n) >= n - shift).long() for n in (rows, columns)
            )
            bands = _cut(3 * down[:, None] + across, side)
            mask = APART * (bands[:, :, None] != bands[:, None]).float()[:, None].to(device)
        return Windows(
            order.to(device),
            inverse.to(device),
            is_padding.nonzero()[:, 0].to(device) if is_padding.any() else None,
            mask,
            rows * columns // side**2,
        )


def _cut(x: Tensor, side: int) -> Tensor:
    """[rows, columns] -> [nW, N]."""
    rows, columns = x.shape
    return x.view(rows // side, side, columns // side, side).transpose(1, 2).reshape(-1, side**2)


def into_windows(x: Tensor, at: Windows) -> Tensor:
    """Pixels [B, H * W, C] -> [B, nW * N, C]: pad, shift and cut in one copy. Where there is padding, x has a last row for it."""
    found: Tensor = _IntoWindows.apply(x, at)
    return found


def out_of_windows(x: Tensor, at: Windows) -> Tensor:
    """[B, nW * N, C] -> pixels [B, H * W, C], the inverse; what lies in the padding is dropped."""
    found: Tensor = _OutOfWindows.apply(x, at)
    return found


# Each pixel has one place, so that the gradient of a gather is a gather with the other table; torch would add rows up one by one.


class _IntoWindows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Windows) -> Tensor:
        ctx.at = at
        return x.index_select(1, at.order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        found = grad.index_select(1, ctx.at.inverse)
        if ctx.at.padding is not None:
            padding = grad.index_select(1, ctx.at.padding).sum(1, keepdim=True)
            found = torch.cat([found, padding], dim=1)
        return found, None


class _OutOfWindows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Windows) -> Tensor:
        ctx.at = at
        return x.index_select(1, at.inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.at.padding is not None:
            grad = F.pad(grad, (0, 0, 0, 1))
        return grad.index_select(1, ctx.at.order), None
