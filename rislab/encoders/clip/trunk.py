"""CLIPs by name and weights, and their ResNets as feature pyramids.

Trunks come from open_clip, whose parameter names are those of OpenAI's archives. Whether they have QuickGELU is a property of
the weights; open_clip only warns when the model's activation is another one than the weights were trained with.
"""

from collections.abc import Mapping
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
from rislab.encoders.clip.weights import CLIPFile, read_clip
from rislab.encoders.weight_sources import absent_for_none
from rislab.errors import ConfigError, DataError, brief, nearest, one_line
from rislab.nn.weight_files import fits


@dataclass(frozen=True)
class CLIPSpec:
    """A CLIP by name and weights: ``{name: RN50, pretrained: openai}``.

    Attributes:
        name: An open_clip model, or `rislab-tiny-RN`, `rislab-tiny-ViT`.
        pretrained: A tag of open_clip; a file of weights with OpenAI's or transformers' names; `toy` for the tiny ones; None
            for random weights.
        quick_gelu: Whether the weights were trained with QuickGELU instead of GELU. None: as open_clip says of the tag; on for
            OpenAI's own archives, for a name with `-quickgelu`, and for random weights. Any other file needs it.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {"rislab.encoders.clip.tiny.VERSION": {"pretrained": "toy"}}
    absent_means: ClassVar[dict[str, Any]] = {"quick_gelu": None}

    name: str
    pretrained: str | None = None
    quick_gelu: bool | None = None

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained")


def load(spec: CLIPSpec) -> "open_clip.CLIP":
    """The named CLIP in float32, with the activation that its weights were trained with.

    Raises:
        ConfigError: Unknown name or tag, a CLIP with another text tower, unavailable weights, or a file whose activation is
            not known.
        DataError: A file without weights of this CLIP.
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
    content = None if file is None else read_clip(file)
    has_quick_gelu = _has_quick_gelu(spec, content)
    try:
        model = open_clip.create_model(
            spec.name,
            pretrained=tag,
            precision="fp32",
            device=torch.get_default_device(),  # `meta`, where only shapes are needed
            force_quick_gelu=has_quick_gelu,
            load_weights=tag is not None,
            quick_gelu=has_quick_gelu,  # also against the model's config
        )
    except MemoryError:
        raise
    except Exception as error:  # of open_clip, timm, transformers, the network and the cache folder
        if tag is None:
            raise ConfigError(f"clip.name {spec.name!r} cannot be built: {one_line(error)}") from error
        raise ConfigError(_unavailable(spec.name, tag, error)) from error
    if file is not None and content is not None:
        _take(model, file, dict(content.state))
    return model


def is_tag(spec: CLIPSpec) -> bool:
    """Whether open_clip lists these weights for this model; case, `-` and `_` do not matter to it."""
    return bool(_tag_config(spec.name, spec.pretrained))


def _tag_config(name: Any, tag: Any) -> dict[str, Any]:
    """What open_clip knows of pretrained weights; empty where it lists none."""
    known = isinstance(name, str) and isinstance(tag, str) and bool(tag)
    return (open_clip.get_pretrained_cfg(name, tag) or {}) if known else {}


def _has_quick_gelu(spec: CLIPSpec, content: CLIPFile | None) -> bool:
    """The option `quick_gelu`, or what is known of the weights.

    Raises:
        ConfigError: The option contradicts the weights, or is missing for a file that does not say.
    """
    known: bool | None = None
    if is_tag(spec):
        known = bool(_tag_config(spec.name, spec.pretrained).get("quick_gelu"))
    elif (
        spec.pretrained == "toy"
        or spec.name.endswith("-quickgelu")
        or (content is not None and content.is_openai_archive)
    ):
        known = True
    given = spec.quick_gelu
    if given is None and known is None and content is not None:
        raise ConfigError(
            f"clip.pretrained {spec.pretrained!r} does not say whether its weights were trained with QuickGELU: set "
            "clip.quick_gelu, true for weights of OpenAI's, false for LAION's and DataComp's"
        )
    if given is not None and known is not None and given != known:
        raise ConfigError(
            f"clip.quick_gelu is {str(given).lower()}, but the weights {spec.pretrained!r} of {spec.name} were trained "
            f"{'with' if known else 'without'} QuickGELU: leave the option out"
        )
    return next((value for value in (given, known) if value is not None), True)


def quick_gelu_of(clip: Mapping[str, Any]) -> bool:
    """The activation of a trained model's CLIP, by its recipe: QuickGELU where a file was given without the option.

    Args:
        clip: The fields of a `CLIPSpec`; they may come from a file.
    """
    given = clip.get("quick_gelu")
    if isinstance(given, bool):
        return given
    config = _tag_config(clip.get("name"), clip.get("pretrained"))
    return bool(config.get("quick_gelu")) if config else True


def without_weights(clip: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields of a `CLIPSpec` for weights that are loaded afterwards: none are fetched, the activation stays."""
    kept = {**clip, "pretrained": None}
    return kept if quick_gelu_of(clip) else {**kept, "quick_gelu": False}


def _file(spec: CLIPSpec) -> Path | None:
    """The file that `pretrained` names; None for a tag and for random weights.

    Raises:
        ConfigError: Neither a file nor a tag.
    """
    if spec.pretrained is None:
        return None
    if is_tag(spec):
        return None
    tags = open_clip.list_pretrained_tags_by_model(spec.name)
    path = Path(spec.pretrained).expanduser()
    if not path.exists():
        raise ConfigError(
            f"clip.pretrained {brief(spec.pretrained, 200)} is neither a file nor one of open_clip's tags for {spec.name}"
            f"{nearest(spec.pretrained, tags)}; tags are {', '.join(tags) or 'none'}"
        )
    return path


def _take(model: "open_clip.CLIP", path: Path, state: dict[str, Tensor]) -> None:
    """Load a state dict into a CLIP as open_clip does: scalars may have a dimension, position tables another size.

    Raises:
        DataError: The state dict of `path` does not fit.
    """
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


def _unavailable(name: str, tag: str, error: Exception) -> str:
    """Message: the missing file, where it is searched, and what to do without a network."""
    config = _tag_config(name, tag)
    hub, url = str(config.get("hf_hub") or ""), str(config.get("url") or "")
    where = (
        f"{hub.rstrip('/')} of the Hugging Face hub, kept in {HF_HUB_CACHE}" if hub else f"{url}, kept in ~/.cache/clip"
    )
    return (
        f"clip {name!r}, pretrained {tag!r}: weights not available: {where} ({one_line(error)[:200]}). Without a network, copy a "
        f"state dict there or give its file, clip.pretrained: /path/to/{name}.safetensors with clip.quick_gelu: "
        f"{str(bool(config.get('quick_gelu'))).lower()}"
    )


def build(vision: dict[str, Any], text: dict[str, Any], embed_dim: int, quick_gelu: bool = True) -> "open_clip.CLIP":
    """A CLIP of given sizes with random weights.

    Args:
        vision: `vision_cfg` as in open_clip's model configs.
        text: `text_cfg`.
        embed_dim: Width of the shared space.
        quick_gelu: QuickGELU instead of GELU.
    """
    return open_clip.CLIP(embed_dim, vision, text, quick_gelu=quick_gelu)


class DenseAttentionPool(nn.Module):
    """CLIP's attention pool for every pixel instead of one mean token (CRIS `model/clip.py`).

    Its four projections are CLIP's; `connect`, a residual 1x1 convolution, is new. The position embedding keeps its first
    row, which belongs to the mean token, so that checkpoints fit; the row gets no gradient.

    Args:
        pool: CLIP's, whose parameters are shared.
        embed_dim: Output channels.
    """

    def __init__(self, pool: AttentionPool2d, embed_dim: int) -> None:
        super().__init__()
        width = pool.q_proj.in_features
        self.positional_embedding = pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.num_heads: int = pool.num_heads
        self.connect = nn.Sequential(nn.Conv2d(width, embed_dim, 1, bias=False), nn.BatchNorm2d(embed_dim))

    def positions(self, height: int, width: int) -> Tensor:
        """The square position table, resized bicubically, [height * width, C]."""
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
    """CLIP's ModifiedResNet as a pyramid: C3, C4 and the densely pooled C5.

    Args:
        visual: The image tower of one of CLIP's ResNets.
        embed_dim: Channels of C5.

    Attributes:
        channels: Of C3, C4 and C5.

    Raises:
        ConfigError: The tower is no ResNet of CLIP's.
    """

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
        """Levels C3 [I, 8w, H/8, W/8], C4 [I, 16w, H/16, W/16], C5 [I, embed_dim, H/32, W/32] of pixels [I, 3, H, W]."""
        x = self.visual.layer1(self.visual.stem(pixels))
        c3 = self.visual.layer2(x)
        c4 = self.visual.layer3(c3)
        return c3, c4, self.attnpool(self.visual.layer4(c4))
