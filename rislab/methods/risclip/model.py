"""RISCLIP: Extending CLIP's Image-Text Alignment to Referring Image Segmentation. Kim et al., NAACL 2024, arXiv 2306.08498.

There is no official code and no parity case. Tables it can run: ablations/risclip.yaml. What the paper (as far as it could be
read) leaves open, and what we took; each is an argument where nothing else is said:
- value path in the last image block only, with its residual and feed-forward part, in OpenAI's arithmetic (`value_path`);
- adapters on the sum after attention and after the MLP, half the block's width, ReLU (`adapter_input`, `adapter_ratio`);
- CFE at the entrance of the last half of the text blocks, each with the image block of the same relative depth; shared width D;
  one LayerNorm before the projections (`cfe_blocks`, `cfe_norms`); padding masked; the class token takes part as a visual token;
- only the projections back start at zero: with all four at zero the module never trains;
- SKE: six layers of cross, self and MLP of width 256, no positions, words see one another in both directions, padding
  masked, the class token dropped before it; the values of attention and the last layer of an MLP start at zero;
- patch logits are a learned scale and shift of the cosine (`map_scale`): the sigmoid of a cosine lies in [0.27, 0.73], from which
  no Dice above 0.2 can be had on objects of 5 % of the picture;
- the untrained row stretches each map between its own extremes; see `rislab.methods.base.contrast_stretched`;
- decoder widths 256, 128, 64, 32 and a last 1x1 convolution to one logit; its map channel is the detached cosine.
"""

from collections.abc import Sequence
from typing import Literal

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.dense import DenseViT, attended, fed, projected
from rislab.methods.risclip.modules import BlockAdapters, Exchange
from rislab.ranks import mean

ValuePath = Literal["last", "all", "none"]


class MapHead(nn.Module):
    """Cosine -> logit: scale * cos + shift. The shift is set by the first training batch, that of all processes together, so
    that its mean logit is -2.

    Args:
        learned: whether both are trained.
    """

    started: Tensor

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0), requires_grad=learned)
        self.shift = nn.Parameter(torch.tensor(-2.0), requires_grad=learned)
        self.register_buffer("started", torch.tensor(False))

    def forward(self, cosine: Tensor) -> Tensor:
        if self.training and not self.started:
            with torch.no_grad():
                self.shift.copy_(-2 - mean(self.scale * cosine))
                self.started.fill_(True)
        return self.scale * cosine + self.shift


class Towers(nn.Module):
    """Both frozen towers of CLIP, with what is put into them; gives patch and word features in CLIP's space.

    adapters: per tower and block, or None. exchanges: by the text block (from 0) at whose entrance they stand.
    """

    attn_mask: Tensor

    def __init__(
        self,
        clip: "open_clip.CLIP",
        value_path: ValuePath,
        image_adapters: nn.ModuleList | None,
        text_adapters: nn.ModuleList | None,
        adapts_sum: bool,
        exchanges: dict[int, Exchange],
        levels: Sequence[int],
    ) -> None:
        super().__init__()
        self.image = DenseViT(clip.visual)
        del clip.visual  # it lives in `image`
        self.clip = clip
        self.value_path, self.adapts_sum = value_path, adapts_sum
        self.image_adapters, self.text_adapters = image_adapters, text_adapters
        self.exchanges = nn.ModuleDict({str(block): exchange for block, exchange in exchanges.items()})
        self.levels = tuple(levels)
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)

    def forward(
        self, pixels: Tensor, tokens: Tensor, image_index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], tuple[int, int]]:
        """Normalised pixels [I, 3, H, W], token ids [N, L], image_index [N] ->
        patches [N, h w, D], words [N, L, D], padding bool [N, L], levels [N, C, h, w] each, grid (h, w).

        Until the first exchange the image does not know the text: one pass an image, not one a sentence.
        """
        end = tokens.argmax(-1)
        padding = torch.arange(tokens.shape[1], device=tokens.device) > end[:, None]
        length = tokens.shape[1]
        t = self.clip.token_embedding(tokens) + self.clip.positional_embedding[:length]
        v, grid = self.image.embed(pixels)
        text_blocks = self.clip.transformer.resblocks
        depth, done, levels = len(self.image.blocks), 0, []
        shared = True
        for number, block in enumerate(text_blocks):
            if str(number) in self.exchanges:
                until = number * depth // len(text_blocks)
                v, found = self._image_blocks(v, done, until)
                levels += [self._as_map(level[image_index] if shared else level, grid) for level in found]
                v, done, shared = v[image_index] if shared else v, until, False
                v, t = self.exchanges[str(number)](v, t, padding)
            t = self._adapted(
                block, t, attended(block, t, self.attn_mask[:length, :length]), self.text_adapters, number
            )
        v, found = self._image_blocks(v, done, depth)
        levels += [self._as_map(level[image_index] if shared else level, grid) for level in found]
        v = v[image_index] if shared else v
        words = self.clip.ln_final(t) @ self.clip.text_projection
        return self.image.project(v[:, 1:]), words, padding, levels, grid

    def _image_blocks(self, v: Tensor, start: int, stop: int) -> tuple[Tensor, list[Tensor]]:
        found = []
        for number in range(start, stop):
            block = self.image.blocks[number]
            own_value = self.value_path == "all" or (self.value_path == "last" and number == len(self.image.blocks) - 1)
            y = projected(block, v, 2) if own_value else attended(block, v)
            v = self._adapted(block, v, y, self.image_adapters, number)
            if number + 1 in self.levels:
                found.append(v)
        return v, found

    def _adapted(self, block: nn.Module, x: Tensor, y: Tensor, adapters: nn.ModuleList | None, number: int) -> Tensor:
        """The rest of a block after its attention has returned y."""
        if adapters is None:
            x = x + y
            return x + fed(block, x)
        own = adapters[number]
        assert isinstance(own, BlockAdapters)
        if self.adapts_sum:
            x = x + y
            x = x + own.attn(x)
            x = x + fed(block, x)
            return x + own.mlp(x)
        x = x + y + own.attn(y)
        y = fed(block, x)
        return x + y + own.mlp(y)

    @staticmethod
    def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


class RISCLIP(nn.Module):
    """Towers, conditioning in the shared space, patch-level map, decoder (figures 1 to 3).

    Args:
        decoder: None for the patch level alone.
        head: None where cosines are taken as they are.
    """

    def __init__(
        self, towers: Towers, conditioning: nn.ModuleList, head: MapHead | None, decoder: nn.Module | None
    ) -> None:
        super().__init__()
        self.towers = towers
        self.conditioning = conditioning
        self.head = head
        self.decoder = decoder

    def patch_map(self, pixels: Tensor, tokens: Tensor, image_index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Cosines float32 [N, h, w], and the image blocks' features for the decoder."""
        v, t, padding, levels, grid = self.towers(pixels, tokens, image_index)
        for layer in self.conditioning:
            v, t = layer(v, t, padding)
        state = t[torch.arange(len(t), device=t.device), tokens.argmax(-1)]
        cosine = torch.einsum("npd,nd->np", F.normalize(v.float(), dim=-1), F.normalize(state.float(), dim=-1))
        return cosine.unflatten(1, grid), levels

    def pixel_logits(self, cosine: Tensor, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """[N, h, w], levels -> mask logits [N, H, W] (section "decoder")."""
        assert self.decoder is not None
        logits = self.decoder(levels[::-1], cosine.detach()[:, None].to(levels[0].dtype))
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits[:, 0]
