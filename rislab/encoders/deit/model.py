"""DeiT and DINO: plain vision transformers of timm, read at every patch.

DeiT: Touvron et al., ICML 2021, arXiv 2012.12877. DINO: Caron et al., ICCV 2021, arXiv 2104.14294. Weights keep timm's names,
which are those of both releases. The feature of a patch is its token behind the last norm. Pixels beyond the last whole patch are
cut off with DeiT, and filled up to a patch with zeros with DINO, as in the code that uses them (NoelShin/reco, networks).
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

Rest = Literal["cut", "pad"]


class PatchEncoder(nn.Module):
    """Features of every patch.

    Args:
        width: Channels.
        depth: Blocks.
        heads: Attention heads of a block.
        patch: Side of a patch in pixels.
        table: Side of the position table in patches.
        mlp_ratio: Hidden channels of a block's feed-forward part, in widths.
        distilled: Whether there is a distillation token beside the class token (DeiT).
        classes: Of the classifier heads, which are kept and not read; 0 for none.
        rest: What becomes of pixels beyond the last whole patch.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int = 16,
        table: int = 14,
        mlp_ratio: float = 4.0,
        distilled: bool = True,
        classes: int = 0,
        rest: Rest = "cut",
    ) -> None:
        super().__init__()
        self.rest = rest
        kind = VisionTransformerDistilled if distilled else VisionTransformer
        self.vit: Any = kind(  # timm declares what all its ViTs may lack
            img_size=table * patch,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            num_classes=classes,
        )

    @property
    def width(self) -> int:
        return int(self.vit.embed_dim)

    @property
    def patch(self) -> int:
        return int(self.vit.patch_embed.patch_size[0])

    @property
    def extra(self) -> int:
        """Tokens that stand for no patch, before those of patches."""
        return int(self.vit.num_prefix_tokens)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position table for a grid (h, w), resized bicubically where it has another shape, [1, extra + h w, C].

        The official code compares the number of tokens, and would not resize a 14 x 14 table for a 7 x 28 grid.
        """
        table = self.vit.pos_embed
        side = round((table.shape[1] - self.extra) ** 0.5)
        if grid == (side, side):
            return table
        square = table[:, self.extra :].transpose(1, 2).unflatten(2, (side, side))
        resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
        return torch.cat([table[:, : self.extra], resized.flatten(2).transpose(1, 2)], dim=1)

    def tokens(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised pixels [I, 3, H, W] -> tokens behind the last norm [I, extra + h w, C], and the grid (h, w)."""
        if self.rest == "pad":
            height, width = pixels.shape[-2:]
            pixels = F.pad(pixels, (0, -width % self.patch, 0, -height % self.patch))
        patches = self.vit.patch_embed.proj(pixels)  # [I, C, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        first = [self.vit.cls_token, *([self.vit.dist_token] if self.extra == 2 else [])]
        tokens = [token.expand(len(pixels), -1, -1) for token in first]
        x = torch.cat([*tokens, patches.flatten(2).transpose(1, 2)], dim=1) + self.positions(grid)
        return self.vit.norm(self.vit.blocks(x)), grid

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [I, 3, H, W] -> features [I, C, h, w] of patches, not normalised."""
        tokens, grid = self.tokens(pixels)
        return tokens[:, self.extra :].transpose(1, 2).unflatten(2, grid)
