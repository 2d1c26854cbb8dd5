"""Swin transformer as LAVT and DMMI use it. Liu et al., ICCV 2021, arXiv 2103.14030.

Parameter names are those of microsoft/Swin-Transformer, which official checkpoints of LAVT and DMMI have below `backbone.`.
Parity: `visual` of every case of `lavt`, `features` of every Swin case of `dmmi`.

A map is padded right and below to whole windows before it is shifted, and windows never shrink. timm's Swin shifts first and
shrinks windows on small maps: at 480 pixels with windows of 12 it is another network, with the same weights.

Ours alone: any height and width; linear layers compute nothing for padding (its query, key and value are the bias); padding,
shift and partition are one gather, and its tables and masks are made once for a size (same numbers).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from rislab.encoders.swin.windows import into_windows, out_of_windows, windows

STD = 0.02
"""Of random weights of linear layers and tables."""


class Swin(nn.Module):
    """Four stages (or any number) at strides 4, 8, 16, 32. Defaults are those of Swin-B with windows of 12.

    Args:
        embed_dim: Channels C of the first stage; each stage has twice those of the one before.
        depths: Blocks of the stages.
        num_heads: Of the stages' attention.
        window: Side of a window, in pixels of the stage.
        drop_path: Rate at which the last block is skipped in training; it rises linearly from 0 at the first.
        mlp_ratio: Hidden width of the MLPs, as a multiple of the channels.
        patch_size: Side of a patch in pixels of the image.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (4, 8, 16, 32),
        window: int = 12,
        drop_path: float = 0.3,
        mlp_ratio: int = 4,
        patch_size: int = 4,
    ) -> None:
        super().__init__()
        self.channels = tuple(embed_dim * 2**i for i in range(len(depths)))
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        blocks = sum(depths)
        rates = iter([drop_path * number / max(1, blocks - 1) for number in range(blocks)])
        self.layers = nn.ModuleList(
            Stage(
                [Block(C, heads, window, window // 2 * (j % 2), mlp_ratio, next(rates)) for j in range(depth)],
                PatchMerging(C) if i + 1 < len(depths) else None,
            )
            for i, (C, depth, heads) in enumerate(zip(self.channels, depths, num_heads, strict=True))
        )
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels [B, 3, H, W] -> the map of each stage, [B, h, w, C], before patch merging."""
        x, maps = pixels, []
        for number in range(len(self.layers)):
            x = self.stage(number, x)
            maps.append(x)
        return maps

    def stage(self, number: int, x: Tensor) -> Tensor:
        """The map of one stage, for methods that do something between them.

        Args:
            number: Of the stage, from 0.
            x: [B, h, w, C], the map of the stage before; for the first one, normalised pixels [B, 3, H, W].

        Returns:
            [B, h', w', C'], before patch merging.
        """
        stages = cast("list[Stage]", list(self.layers))
        merging = stages[number - 1].downsample if number else self.patch_embed
        assert merging is not None, "all stages but the last one are followed by patch merging"
        return stages[number](merging(x))


class PatchEmbed(nn.Module):
    """Patches, embedded and normalised; the image is padded with zeros right and below to whole patches."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, h, w, C]."""
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(pixels).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """Blocks, windows shifted in every second one. Its patch merging, a part of the next stage, goes by this one's name."""

    def __init__(self, blocks: Sequence["Block"], downsample: "PatchMerging | None") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class PatchMerging(nn.Module):
    """Half the size, twice the channels; maps of odd size are padded with zeros right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), 2C]."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Block(nn.Module):
    """Attention within windows and an MLP, each behind a LayerNorm and with a residual that training skips at random."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio * channels)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MLP(nn.Module):
    """Two linear layers with exact GELU between."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Multi-head attention of the pixels of a window, with a learned bias for each offset between two of them."""

    offsets: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("offsets", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=STD)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same shape."""
        B, height, width, C = x.shape
        at = windows(height, width, self.window, self.shift, x.device)
        x = x.flatten(1, 2)  # [B, hw, C]
        if at.padding is not None:
            x = F.pad(x, (0, 0, 0, 1))  # one pixel of zeros stands for all padding
        qkv = into_windows(self.qkv(x), at)  # [B, nW * N, 3C]
        q, k, v = qkv.view(B * at.count, -1, 3, self.heads, C // self.heads).permute(
            2, 0, 3, 1, 4
        )  # [B * nW, heads, N, d]
        x = out_of_windows(self._attended(q, k, v, B, at.mask).reshape(B, -1, C), at)  # [B, hw, C]
        return self.proj(x).view(B, height, width, C)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, B: int, mask: Tensor | None) -> Tensor:
        """Queries, keys and values [B * nW, heads, N, d] -> [B * nW, N, heads, d]."""
        parts = 1
        if mask is not None and not torch.is_grad_enabled():
            parts = B  # picture by picture: the kernel wants a mask for every window, and so needs no copies of it
        bias = self._bias(B // parts, mask).to(q.dtype)
        found = [
            F.scaled_dot_product_attention(*each, attn_mask=bias).transpose(1, 2)
            for each in zip(q.chunk(parts), k.chunk(parts), v.chunk(parts), strict=True)
        ]
        return found[0] if parts == 1 else torch.cat(found)

    def _bias(self, B: int, mask: Tensor | None) -> Tensor:
        """What is added to the logits: [1, heads, N, N] without a shift, else [B * nW, heads, N, N]."""
        N = self.window**2
        bias = self.relative_position_bias_table[self.offsets].view(1, N, N, self.heads).permute(0, 3, 1, 2)
        if mask is None:
            return bias
        shifted = bias + mask
        return shifted if B == 1 else shifted.repeat(B, 1, 1, 1)


def relative_position_index(window: int) -> Tensor:
    """int64 [N * N]: the row of the bias table for pixels i and j of a window, N its square."""
    rows, columns = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
    down, across = rows[:, None] - rows + window - 1, columns[:, None] - columns + window - 1
    return (down * (2 * window - 1) + across).flatten()


def _initialise(module: nn.Module) -> None:
    """As Swin starts: linear weights from N(0, 0.02), cut at two standard deviations, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
