"""CLIP as dense methods need it: feature pyramids and word features instead of one vector.

Trunks come from open_clip, whose parameter names are those of OpenAI's archives. QuickGELU is always on: OpenAI's weights
were trained with it, and open_clip only warns when it is missing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import open_clip
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from rislab.clip import tiny
from rislab.errors import ConfigError, nearest


@dataclass(frozen=True)
class CLIPSpec:
    """Which CLIP: ``{name: RN50, pretrained: openai}``.

    name: an open_clip model, or `rislab-tiny-RN`, `rislab-tiny-ViT`.
    pretrained: a tag or file that open_clip knows; `toy` for the tiny ones; None for random weights.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {"rislab.clip.tiny.VERSION": {"pretrained": "toy"}}

    name: str
    pretrained: str | None = None


def load(spec: CLIPSpec) -> "open_clip.CLIP":
    """The named CLIP in float32, with QuickGELU. Raises ConfigError: unknown name or tag, weights that cannot be had."""
    tiny.register_configs()
    known = open_clip.list_models()
    if spec.name not in known:
        raise ConfigError(f"clip.name {spec.name!r} is no open_clip model{nearest(spec.name, known)}")
    pretrained = spec.pretrained
    if pretrained == "toy":
        pretrained = str(tiny.pretrained_path(spec.name))
    try:
        model = open_clip.create_model(
            spec.name,
            pretrained=pretrained,
            precision="fp32",
            device=torch.get_default_device(),  # `meta`, where only shapes are asked for
            force_quick_gelu=True,
            load_weights=pretrained is not None,
        )
    except (RuntimeError, OSError) as error:
        tags = open_clip.list_pretrained_tags_by_model(spec.name)
        raise ConfigError(
            f"clip {spec.name!r}, pretrained {spec.pretrained!r}: weights not to be had ({error}). Known tags: {tags}; "
            "a path to a downloaded file works, too"
        ) from error
    return model


def build(vision: dict[str, Any], text: dict[str, Any], embed_dim: int) -> "open_clip.CLIP":
    """A CLIP of given sizes with random weights; `vision` and `text` as in open_clip's model configs."""
    return open_clip.CLIP(embed_dim, vision, text, quick_gelu=True)


class DenseAttentionPool(nn.Module):
    """CLIP's attention pool for every pixel instead of one mean token (CRIS `model/clip.py`).

    Its four projections are CLIP's; `connect`, a residual 1x1 convolution, is new. The position embedding keeps its first
    row, which belongs to the mean token, so that checkpoints fit; the row gets no gradient.
    """

    def __init__(self, pool: AttentionPool2d, embed_dim: int) -> None:
        super().__init__()
        width = pool.q_proj.in_features
        self.positional_embedding = pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.num_heads: int = pool.num_heads
        self.connect = nn.Sequential(nn.Conv2d(width, embed_dim, 1, bias=False), nn.BatchNorm2d(embed_dim))

    def positions(self, height: int, width: int) -> Tensor:
        """[height * width, C], the square table resized bicubically."""
        table = self.positional_embedding[1:]
        side = round(table.shape[0] ** 0.5)
        grid = table.T.view(1, -1, side, side)
        if (height, width) != (side, side):
            grid = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        return grid.flatten(2)[0].T

    def forward(self, x: Tensor) -> Tensor:
        """[I, C, h, w] -> [I, embed_dim, h, w]."""
        images, _, height, width = x.shape
        residual = self.connect(x)
        tokens = x.flatten(2).transpose(1, 2) + self.positions(height, width).to(x.dtype)

        def heads(projected: Tensor) -> Tensor:
            return projected.view(images, height * width, self.num_heads, -1).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            heads(self.q_proj(tokens)), heads(self.k_proj(tokens)), heads(self.v_proj(tokens))
        )
        pooled = self.c_proj(attended.transpose(1, 2).flatten(2))
        return F.relu(pooled.transpose(1, 2).reshape(images, -1, height, width) + residual)


class ResNetPyramid(nn.Module):
    """CLIP's ModifiedResNet as a pyramid: C3, C4 and the densely pooled C5."""

    def __init__(self, visual: ModifiedResNet, embed_dim: int) -> None:
        super().__init__()
        if not isinstance(visual, ModifiedResNet):
            raise ConfigError(f"a feature pyramid needs one of CLIP's ResNets, not {type(visual).__name__}")
        self.visual = visual
        self.attnpool = DenseAttentionPool(visual.attnpool, embed_dim)
        del self.visual.attnpool
        c3 = int(visual.layer2[-1].conv3.out_channels)
        self.channels = (c3, 2 * c3, embed_dim)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[I, 3, H, W] -> C3 [I, 8w, H/8, W/8], C4 [I, 16w, H/16, W/16], C5 [I, embed_dim, H/32, W/32]."""
        x = self.visual.layer1(self.visual.stem(pixels))
        c3 = self.visual.layer2(x)
        c4 = self.visual.layer3(c3)
        return c3, c4, self.attnpool(self.visual.layer4(c4))


class TextEncoder(nn.Module):
    """CLIP's text transformer: a feature for every word, and the sentence state.

    Any number of tokens up to the table's length: positions and causal mask are cut to it. No padding mask: the end token
    precedes the padding, and attention is causal.
    """

    attn_mask: Tensor

    def __init__(self, clip: "open_clip.CLIP") -> None:
        super().__init__()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)

    @property
    def width(self) -> int:
        return int(self.ln_final.normalized_shape[0])

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids int64 [N, L], zero-padded -> words [N, L, width] and state [N, embed_dim].

        The end token has the largest id; words are not projected, the state is.
        """
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        words = self.ln_final(x)
        state = words[torch.arange(len(tokens), device=tokens.device), tokens.argmax(-1)] @ self.text_projection
        return words, state
