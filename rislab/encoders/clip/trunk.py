"""CLIP as dense methods need it: feature pyramids and word features instead of one vector.

Trunks come from open_clip, whose parameter names are those of OpenAI's archives. QuickGELU is always on: OpenAI's weights
were trained with it, and open_clip only warns when it is missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
import torch.nn.functional as F
from huggingface_hub.constants import HF_HUB_CACHE
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from rislab.encoders.clip import tiny
from rislab.errors import ConfigError, DataError, nearest, one_line
from rislab.nn.weight_files import fits, read_weights


@dataclass(frozen=True)
class CLIPSpec:
    """Which CLIP: ``{name: RN50, pretrained: openai}``.

    name: an open_clip model, or `rislab-tiny-RN`, `rislab-tiny-ViT`.
    pretrained: a tag or file that open_clip knows; `toy` for the tiny ones; None for random weights.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {"rislab.encoders.clip.tiny.VERSION": {"pretrained": "toy"}}

    name: str
    pretrained: str | None = None


OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's state dicts hold beside the weights."""


def load(spec: CLIPSpec) -> "open_clip.CLIP":
    """The named CLIP in float32, with QuickGELU.

    Raises ConfigError: unknown name or tag, a CLIP of another kind, weights that cannot be had. Raises DataError: a file that
        holds no weights of this CLIP.
    """
    tiny.register_configs()
    known = open_clip.list_models()
    if spec.name not in known:
        raise ConfigError(f"clip.name {spec.name!r} is no open_clip model{nearest(spec.name, known)}")
    config = open_clip.get_model_config(spec.name) or {}
    text = config.get("text_cfg", {})
    if config.get("custom_text") or "multimodal_cfg" in config or text.keys() & {"hf_model_name", "hf_tokenizer_name"}:
        raise ConfigError(
            f"clip.name {spec.name!r} has another text tower than CLIP's own, which the methods here read"
        )
    file = tiny.pretrained_path(spec.name) if spec.pretrained == "toy" else _file(spec)
    tag = spec.pretrained if file is None else None
    try:
        model = open_clip.create_model(
            spec.name,
            pretrained=tag,
            precision="fp32",
            device=torch.get_default_device(),  # `meta`, where only shapes are asked for
            force_quick_gelu=True,
            load_weights=tag is not None,
        )
    except MemoryError:
        raise
    except Exception as error:  # of open_clip, timm, transformers, the network and the cache folder
        if tag is None:
            raise ConfigError(f"clip.name {spec.name!r} cannot be built: {one_line(error)}") from error
        raise ConfigError(_not_to_be_had(spec.name, tag, error)) from error
    if file is not None:
        _take(model, file)
    return model


def is_tag(spec: CLIPSpec) -> bool:
    """Whether open_clip lists these weights for this model; case, `-` and `_` do not matter to it."""
    return bool(open_clip.get_pretrained_cfg(spec.name, spec.pretrained)) if spec.pretrained else False


def _file(spec: CLIPSpec) -> Path | None:
    """The file that `pretrained` names; None for a tag and for random weights. Raises ConfigError: neither file nor tag."""
    if spec.pretrained is None:
        return None
    if is_tag(spec):
        return None
    tags = open_clip.list_pretrained_tags_by_model(spec.name)
    path = Path(spec.pretrained).expanduser()
    if not path.exists():
        raise ConfigError(
            f"clip.pretrained {spec.pretrained!r} is neither a file nor one of open_clip's tags for {spec.name}"
            f"{nearest(spec.pretrained, tags)}; tags are {', '.join(tags) or 'none'}"
        )
    return path


def _take(model: "open_clip.CLIP", path: Path) -> None:
    """Put the weights of a file into a CLIP as open_clip does: scalars may have a dimension, position tables another size."""
    state = {key: value for key, value in read_weights(path).items() if key not in OPENAI_EXTRAS}
    own = model.state_dict()
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in own and state[key].numel() == 1:
            state[key] = state[key].reshape(own[key].shape)
    try:
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise DataError(f"{path}: its position tables cannot be resized to this CLIP's ({one_line(error)})") from error
    fits(path, state, own)
    model.load_state_dict(state)


def _not_to_be_had(name: str, tag: str, error: Exception) -> str:
    """Which file is missing, where it would be looked for, and what to do without a network."""
    config = open_clip.get_pretrained_cfg(name, tag) or {}
    hub, url = str(config.get("hf_hub") or ""), str(config.get("url") or "")
    where = (
        f"{hub.rstrip('/')} of the Hugging Face hub, kept in {HF_HUB_CACHE}" if hub else f"{url}, kept in ~/.cache/clip"
    )
    return (
        f"clip {name!r}, pretrained {tag!r}: weights not to be had: {where} ({one_line(error)[:200]}). Without a network, copy a "
        f"state dict there or give its file, clip.pretrained: /path/to/{name}.safetensors"
    )


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
