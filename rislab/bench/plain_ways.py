"""The plain ways of computing what LAVT and DMMI compute in another way here: the same numbers, with what that costs.

Each replaces a method of a module for as long as a context lasts. Sources: the official codes (yz93/LAVT-RIS,
toggle1995/RIS-DMMI), read and not copied.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.swin import model as swin
from rislab.encoders.swin.windows import windows
from rislab.errors import ConfigError
from rislab.methods.dmmi import layers, mba
from rislab.nn.pixels_and_words import InstanceNorm, attention_over_words


def unfolded_regions(
    self: mba.RegionAttention, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None
) -> Tensor:
    """`RegionAttention.forward`: the k x k pixels around each are copied side by side, and then projected."""
    height, width = x.shape[1:3]
    q = self.norm(self.reduce(x).flatten(1, 2)).transpose(1, 2).unflatten(2, (height, width))
    side = self.gather.kernel_size[0]
    q = F.unfold(q, side, padding=side // 2)  # [I, c k k, P]
    q = F.conv1d(q, self.gather.weight.flatten(1)[..., None], self.gather.bias)
    q = self.norm(q.transpose(1, 2))
    k = self.scale * self.key(words) * present[..., None]
    return attention_over_words((q if rows is None else q[rows]) @ k.transpose(1, 2), present)


def _projected(self: mba.PixelProjection, pixels: mba.CentredPixels) -> Tensor:
    """The map of the pixels in the width of the words, normalised over positions, [N, P, D]."""
    return InstanceNorm()(F.linear(pixels.of_queries, self.weight, self.bias))


def logits_of_projected_pixels(self: mba.PixelProjection, q: Tensor, pixels: mba.CentredPixels) -> Tensor:
    """`PixelProjection.logits` with the projected map."""
    return q @ _projected(self, pixels).transpose(1, 2)


def sum_of_projected_pixels(self: mba.PixelProjection, B: Tensor, pixels: mba.CentredPixels) -> Tensor:
    """`PixelProjection.weighted_sum` with the projected map."""
    return B @ _projected(self, pixels)


def attention_with_all_weights(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, hidden: Tensor | None = None
) -> Tensor:
    """`rislab.nn.attention.attention`: the weights of every query and key are held for the gradient."""
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, None, None], -math.inf)
    return F.dropout(logits.softmax(-1), dropout) @ v


def windows_made_anew(self: swin.WindowAttention, x: Tensor) -> Tensor:
    """`WindowAttention.forward`: pad, roll and cut in turn; the mask and the biases are made for each block and picture."""
    B, height, width, C = x.shape
    side, shift, heads = self.window, self.shift, self.heads
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    rows, columns = x.shape[1:3]
    x = x.roll((-shift, -shift), (1, 2)) if shift else x
    x = x.view(B, rows // side, side, columns // side, side, C).transpose(2, 3).reshape(-1, side**2, C)
    q, k, v = self.qkv(x).view(len(x), -1, 3, heads, C // heads).permute(2, 0, 3, 1, 4)
    bias = self.relative_position_bias_table[swin.relative_position_index(side)]
    logits = q * (C // heads) ** -0.5 @ k.transpose(2, 3) + bias.view(side**2, side**2, heads).permute(2, 0, 1)
    if shift:
        mask = windows.__wrapped__(height, width, side, shift, x.device).mask  # [nW, 1, N, N]
        assert mask is not None
        logits = (logits.unflatten(0, (B, -1)) + mask).flatten(0, 1)
    x = (logits.softmax(-1) @ v).transpose(1, 2).reshape(-1, side**2, C)
    x = x.view(B, rows // side, columns // side, side, side, C).transpose(2, 3).reshape(B, rows, columns, C)
    x = x.roll((shift, shift), (1, 2)) if shift else x
    return self.proj(x[:, :height, :width].contiguous())


@dataclass(frozen=True)
class PlainWay:
    """A saving undone.

    Attributes:
        meaning: What is computed, and how.
        used_by: A method has the saving if it has such a module.
        replaced: Owner, name and plain version of what the saving is.
    """

    meaning: str
    used_by: type[nn.Module]
    replaced: tuple[tuple[Any, str, Callable[..., Tensor]], ...]


PLAIN_WAYS = {
    "regions": PlainWay(
        "DMMI's regions of pixels unfolded and projected, instead of a k x k convolution",
        mba.RegionAttention,
        ((mba.RegionAttention, "forward", unfolded_regions),),
    ),
    "pixels": PlainWay(
        "DMMI's pixels projected to the width of the words, instead of words to that of the pixels",
        mba.PixelProjection,
        (
            (mba.PixelProjection, "logits", logits_of_projected_pixels),
            (mba.PixelProjection, "weighted_sum", sum_of_projected_pixels),
        ),
    ),
    "attention": PlainWay(
        "the attention weights of DMMI's decoder held, instead of a memory-saving kernel",
        layers.MultiheadAttention,
        ((layers, "attention", attention_with_all_weights),),
    ),
    "windows": PlainWay(
        "Swin's masks and bias tables made in each block, instead of once",
        swin.WindowAttention,
        ((swin.WindowAttention, "forward", windows_made_anew),),
    ),
}


@contextmanager
def computing_plainly(names: tuple[str, ...], method: nn.Module) -> Iterator[None]:
    """Undo the named savings inside.

    Args:
        names: Of `PLAIN_WAYS`.
        method: Which is run inside.

    Raises:
        ConfigError: The method has no such saving.
    """
    with ExitStack() as stack:
        for name in names:
            way = PLAIN_WAYS[name]
            if not any(isinstance(module, way.used_by) for module in method.modules()):
                raise ConfigError(f"--plain {name}: {type(method).__name__} has no {way.used_by.__name__} to undo")
            for owner, attribute, plain in way.replaced:
                stack.callback(setattr, owner, attribute, getattr(owner, attribute))
                setattr(owner, attribute, plain)
        yield
