"""CLIP's image towers as dense encoders: a feature for every patch, in the space of the sentences.

Source of the value path: Zhou et al., ECCV 2022 (MaskCLIP), and chongzhou96/MaskCLIP; TCL and RISCLIP use it, too. Their
differences (residual, feed-forward, arithmetic) are arguments.
"""

from collections.abc import Sequence
from typing import Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from rislab.encoders.clip.text import encode
from rislab.encoders.clip.tokens import Tokenizer
from rislab.errors import ConfigError

LastAttention = Literal["value", "full"]


def attended(block: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The branch of a CLIP block's attention, without its residual.

    Args:
        block: One of open_clip's residual attention blocks.
        x: Tokens [B, T, C].
        mask: Added to the attention logits, [T, T].

    Returns:
        [B, T, C].
    """
    y = block.ln_1(x)
    return block.ls_1(block.attn(y, y, y, need_weights=False, attn_mask=mask)[0])


def fed(block: Any, x: Tensor) -> Tensor:
    """The branch of a CLIP block's feed-forward part, without its residual, [B, T, C]."""
    return block.ls_2(block.mlp(block.ln_2(x)))


def projected(block: Any, x: Tensor, which: Literal[0, 1, 2]) -> Tensor:
    """Queries, keys or values of every token through the block's output projection.

    Heads play no role: without softmax, attention returns the concatenated heads of the token itself.

    Args:
        block: One of open_clip's residual attention blocks.
        x: Tokens [B, T, C].
        which: 0 for queries, 1 for keys, 2 for values.

    Returns:
        [B, T, C].
    """
    attention = block.attn
    rows = slice(which * attention.embed_dim, (which + 1) * attention.embed_dim)
    own = F.linear(block.ln_1(x), attention.in_proj_weight[rows], attention.in_proj_bias[rows])
    return attention.out_proj(own)


class DenseViT(nn.Module):
    """CLIP's vision transformer, block by block.

    Args:
        visual: The image tower of a CLIP, a plain ViT with a class token.

    Raises:
        ConfigError: Any other image tower.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
            raise ConfigError(f"patch features need one of CLIP's ViTs with a class token, not {type(visual).__name__}")
        self.visual = visual

    @property
    def width(self) -> int:
        return int(self.visual.conv1.out_channels)

    @property
    def embed_dim(self) -> int:
        return int(self.visual.proj.shape[1])

    @property
    def patch(self) -> int:
        return int(self.visual.conv1.kernel_size[0])

    @property
    def blocks(self) -> nn.ModuleList:
        return self.visual.transformer.resblocks

    def embed(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens before the first block.

        Args:
            pixels: Normalised [I, 3, H, W]. Sides that are no multiples of the patch are padded with zeros at the right and
                bottom.

        Returns:
            Tokens [I, 1 + h w, C], the class token first, and the grid (h, w).
        """
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % self.patch, 0, -height % self.patch))
        patches = self.visual.conv1(pixels)  # [I, C, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        first = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)
        return self.visual.ln_pre(tokens + self.positions(grid).to(tokens.dtype)), grid

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position table, resized bicubically where the grid is not the table's; the class token's row stays.

        MaskCLIP's official code compares the number of tokens instead of the grid's shape, and would not resize a 14 x 14
        table for a 7 x 28 grid.

        Args:
            grid: Height and width (h, w) in patches.

        Returns:
            [1 + h w, C].
        """
        table = self.visual.positional_embedding
        if grid == tuple(self.visual.grid_size):
            return table
        square = table[1:].view(1, *self.visual.grid_size, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(square.float(), grid, mode="bicubic", align_corners=False).to(table.dtype)
        return torch.cat([table[:1], resized.flatten(2).transpose(1, 2)[0]])

    def through(self, x: Tensor, blocks: slice) -> Tensor:
        """Tokens [I, T, C] through some of the blocks, as CLIP computes them."""
        for block in self.blocks[blocks]:
            x = x + attended(block, x)
            x = x + fed(block, x)
        return x

    def last(self, x: Tensor, attention: LastAttention, residual: bool, ffn: bool) -> Tensor:
        """Tokens through the last block.

        Args:
            x: Tokens [I, T, C].
            attention: `full` as CLIP computes it; `value`: each token by its own value (MaskCLIP).
            residual: Whether the attention's branch is added to its input.
            ffn: Whether the feed-forward part follows.

        Returns:
            [I, T, C].
        """
        block = self.blocks[-1]
        y = attended(block, x) if attention == "full" else projected(block, x, 2)
        y = x + y if residual else y
        return y + fed(block, y) if ffn else y

    def project(self, x: Tensor) -> Tensor:
        """Tokens [.., C] in the space of the sentences, [.., embed_dim], not normalised."""
        return self.visual.ln_post(x) @ self.visual.proj

    def forward(
        self, pixels: Tensor, attention: LastAttention = "value", residual: bool = True, ffn: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Dense features.

        Args:
            pixels: Normalised [I, 3, H, W].
            attention: See `last`.
            residual: See `last`.
            ffn: See `last`.

        Returns:
            Features [I, D, h, w], and the last block's keys [I, h w, C].
        """
        x, grid = self.embed(pixels)
        x = self.through(x, slice(0, -1))
        dense = self.project(self.last(x, attention, residual, ffn)[:, 1:])
        return dense.transpose(1, 2).unflatten(2, grid), projected(self.blocks[-1], x, 1)[:, 1:]


class DenseResNet(nn.Module):
    """CLIP's ModifiedResNet with its attention pool at every position: stride 32.

    With attention `value`, each position goes through the pool's value and output projections. With `full`, it is the pool's
    attention, with the mean token and without its position table, as in MaskCLIP's plain-CLIP baseline. There is no residual
    and no feed-forward part to leave out.

    Args:
        visual: The image tower of one of CLIP's ResNets.

    Raises:
        ConfigError: Any other image tower.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        if not isinstance(visual, ModifiedResNet):
            raise ConfigError(f"dense ResNet features need one of CLIP's ResNets, not {type(visual).__name__}")
        self.visual = visual

    @property
    def embed_dim(self) -> int:
        return int(self.visual.attnpool.c_proj.out_features)

    def forward(
        self, pixels: Tensor, attention: LastAttention = "value", residual: bool = True, ffn: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Dense features; the arguments are those of `DenseViT.forward`.

        Returns:
            Features [I, D, h, w], and the pool's keys [I, h w, C].

        Raises:
            ConfigError: Without residual or feed-forward part, which a pool does not have.
        """
        if not (residual and ffn):
            raise ConfigError("residual and ffn belong to a ViT's last block; a ResNet's pool has neither")
        x = self.visual.stem(pixels)
        for layer in (self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4):
            x = layer(x)
        pool, grid = self.visual.attnpool, x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)  # [I, h w, C]
        dense = pool.c_proj(pool.v_proj(tokens)) if attention == "value" else self._attended(tokens)
        return dense.transpose(1, 2).unflatten(2, tuple(grid)), pool.k_proj(tokens)

    def _attended(self, tokens: Tensor) -> Tensor:
        pool = self.visual.attnpool
        everything = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
        q, k, v = (p(everything).unflatten(2, (pool.num_heads, -1)).transpose(1, 2) for p in _qkv(pool))
        found = F.scaled_dot_product_attention(q, k, v)
        return pool.c_proj(found.transpose(1, 2).flatten(2))[:, 1:]


def _qkv(pool: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return pool.q_proj, pool.k_proj, pool.v_proj


def dense(visual: nn.Module) -> DenseViT | DenseResNet:
    """The dense encoder for a CLIP's image tower.

    Raises:
        ConfigError: An image tower that is neither a ViT with a class token nor a ResNet of CLIP's.
    """
    return DenseResNet(visual) if isinstance(visual, ModifiedResNet) else DenseViT(visual)


def imitate_mmseg(visual: nn.Module) -> None:
    """Change a ViT, in place, to the arithmetic of MaskCLIP's official code: LayerNorm eps 1e-6, exact GELU.

    OpenAI's weights were trained with eps 1e-5 and QuickGELU; the published ViT numbers were measured with this deviation.
    """
    for module in visual.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
        for name, child in module.named_children():
            if isinstance(child, QuickGELU):
                setattr(module, name, nn.GELU())


def averaged(each: Tensor, unit_first: bool) -> Tensor:
    """Unit embeddings of names from those of their prompts.

    Args:
        each: Embeddings of T prompts for each of K names, [K, T, D].
        unit_first: Whether each gets unit length before the mean.

    Returns:
        [K, D].
    """
    return F.normalize((F.normalize(each, dim=-1) if unit_first else each).mean(1), dim=-1)


class Prompts(nn.Module):
    """Text embeddings of sentences and class names by a frozen text tower; those of class names are kept.

    Args:
        clip: Whose text tower is used; it needs no image tower.
        tokenizer: Of the same CLIP.
        context_length: Tokens that a text is cut to; None for the length of the position table.
    """

    def __init__(self, clip: "open_clip.CLIP", tokenizer: Tokenizer, context_length: int | None = None) -> None:
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.context_length = context_length or int(clip.positional_embedding.shape[0])
        self._made: dict[tuple[tuple[str, ...], str], Tensor] = {}

    def clear(self) -> None:
        """Drop what is kept."""
        self._made.clear()

    @torch.no_grad()
    def raw(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 [N, D] of N sentences, not normalised and not kept.

        Positions behind the longest text are left out: attention is causal, so they change nothing.
        """
        tokens = self.tokenizer(texts, self.context_length).to(self.clip.text_projection.device)
        length = int(tokens.argmax(-1).max()) + 1  # the end token has the largest id
        return encode(self.clip, tokens[:, :length])[1].float()

    @torch.no_grad()
    def forward(self, texts: Sequence[str], templates: Sequence[str] = ("{}",), unit_first: bool = True) -> Tensor:
        """Unit embeddings of K class names. A vocabulary is encoded once, not once an image.

        Args:
            texts: K names.
            templates: With ``{}`` for the name; several are averaged, and the mean has unit length.
            unit_first: Each has unit length before the mean, too (MaskCLIP); TCL and GroupViT average raw embeddings. Always
                the same for one object: what is kept does not depend on it.

        Returns:
            float32 [K, D].
        """
        forms = tuple(templates)
        new = [text for text in dict.fromkeys(texts) if (forms, text) not in self._made]
        device = self.clip.text_projection.device
        for start in range(0, len(new), 64):
            some = new[start : start + 64]
            filled = [form.format(text) if len(forms) > 1 or form != "{}" else text for text in some for form in forms]
            each = self.raw(filled).view(len(some), len(forms), -1)
            mean = averaged(each, unit_first)
            self._made |= {(forms, text): one for text, one in zip(some, mean, strict=True)}
        if not texts:
            return torch.zeros(0, int(self.clip.text_projection.shape[1]), device=device)
        return torch.stack([self._made[forms, text].to(device) for text in texts])


SENTENCE = ("{}",)
PHOTO = ("a photo of a {}.",)

IMAGENET_80 = (
        "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.", "a photo of the hard to see {}.",
        "a low resolution photo of the {}.", "a rendering of a {}.", "graffiti of a {}.", "a bad photo of the {}.",
        "a cropped photo of the {}.", "a tattoo of a {}.", "the embroidered {}.", "a photo of a hard to see {}.",
        "a bright photo of a {}.", "a photo of a clean {}.", "a photo of a dirty {}.", "a dark photo of the {}.",
        "a drawing of a {}.", "a photo of my {}.", "the plastic {}.", "a photo of the cool {}.",
        "a close-up photo of a {}.", "a black and white photo of the {}.", "a painting of the {}.", "a painting of a {}.",
        "a pixelated photo of the {}.", "a sculpture of the {}.", "a bright photo of the {}.", "a cropped photo of a {}.",
        "a plastic {}.", "a photo of the dirty {}.", "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.",
        "a photo of the {}.", "a good photo of the {}.", "a rendering of the {}.", "a {} in a video game.",
        "a photo of one {}.", "a doodle of a {}.", "a close-up photo of the {}.", "a photo of a {}.",
        "the origami {}.", "the {} in a video game.", "a sketch of a {}.", "a doodle of the {}.",
        "a origami {}.", "a low resolution photo of a {}.", "the toy {}.", "a rendition of the {}.",
        "a photo of the clean {}.", "a photo of a large {}.", "a rendition of a {}.", "a photo of a nice {}.",
        "a photo of a weird {}.", "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.",
        "a sketch of the {}.", "a embroidered {}.", "a pixelated photo of a {}.", "itap of the {}.",
        "a jpeg corrupted photo of the {}.", "a good photo of a {}.", "a plushie {}.", "a photo of the nice {}.",
        "a photo of the small {}.", "a photo of the weird {}.", "the cartoon {}.", "art of the {}.",
        "a drawing of the {}.", "a photo of the large {}.", "a black and white photo of a {}.", "the plushie {}.",
        "a dark photo of a {}.", "itap of a {}.", "graffiti of the {}.", "a toy {}.",
        "itap of my {}.", "a photo of a cool {}.", "a photo of a small {}.", "a tattoo of the {}.",
)  # fmt: skip
"""OpenAI's prompts for ImageNet (openai/CLIP, Prompt_Engineering_for_ImageNet)."""

SCENE_85 = (
    *IMAGENET_80,
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""MaskCLIP's and ViLD's: OpenAI's and five for scenes."""

SUBSET_7 = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven of the eighty that OpenAI's notebook finds best on ImageNet."""

TCL_9 = (*SUBSET_7, "a photo of many {}.", "a photo of {}s.")
"""TCL's `custom` set."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "sentence": SENTENCE,
    "photo": PHOTO,
    "imagenet80": IMAGENET_80,
    "scene85": SCENE_85,
    "subset7": SUBSET_7,
    "tcl9": TCL_9,
}
TemplateName = Literal["sentence", "photo", "imagenet80", "scene85", "subset7", "tcl9"]
