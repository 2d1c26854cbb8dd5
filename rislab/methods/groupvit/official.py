"""Weights from elsewhere: NVlabs/GroupViT (`group_vit_gcc_yfcc_30e-879422e0.pth` and others), and transformers' GroupViTModel.

Official files hold an OmegaConf object beside the weights; `read_weights` runs no code and needs no omegaconf. Convolutions of
kernel 1 in the projectors are linear maps here. transformers has queries, keys and values of the blocks apart, and no temperature
of the multi-label contrast: a file of theirs goes with `multi_label: 0` or `share_temperature: true`, which training alone reads.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rislab.errors import about
from rislab.nn.renaming import renamed, with_joined_attention, with_split_attention
from rislab.nn.weight_files import read_weights

STAGE, THEIRS, HUB = "model.image.stages.*.", "img_encoder.layers.*.", "vision_model.encoder.stages.*."
BLOCK, RES = "model.text.blocks.*.", "text_encoder.transformer.resblocks.*."
HUB_TEXT = "text_model.encoder.layers.*."
NAMES = (
    # ours                                   official
    ("model.image.patch.", "img_encoder.patch_embed.proj."),
    ("model.image.patch_norm.", "img_encoder.patch_embed.norm."),
    ("model.image.positions", "img_encoder.pos_embed"),
    ("model.image.norm.", "img_encoder.norm."),
    (f"{STAGE}group_tokens", f"{THEIRS}group_token"),
    (f"{STAGE}token_projector.", f"{THEIRS}group_projector."),
    (f"{STAGE}blocks.", f"{THEIRS}blocks."),
    (f"{STAGE}grouping.norm_tokens.", f"{THEIRS}downsample.norm_tokens."),
    (f"{STAGE}grouping.mixer.", f"{THEIRS}downsample.mlp_inter."),
    (f"{STAGE}grouping.norm_post_tokens.", f"{THEIRS}downsample.norm_post_tokens."),
    (f"{STAGE}grouping.norm_x.", f"{THEIRS}downsample.norm_x."),
    (f"{STAGE}grouping.pre_assign.", f"{THEIRS}downsample.pre_assign_attn."),
    (f"{STAGE}grouping.assign.", f"{THEIRS}downsample.assign."),
    (f"{STAGE}grouping.norm_new.", f"{THEIRS}downsample.norm_new_x."),
    (f"{STAGE}grouping.mlp.", f"{THEIRS}downsample.mlp_channels."),
    (f"{STAGE}grouping.reduction.", f"{THEIRS}downsample.reduction."),
    ("model.text.tokens.", "text_encoder.token_embedding."),
    ("model.text.positions", "text_encoder.positional_embedding"),
    ("model.text.norm.", "text_encoder.ln_final."),
    (f"{BLOCK}norm1.", f"{RES}ln_1."),
    (f"{BLOCK}norm2.", f"{RES}ln_2."),
    (f"{BLOCK}attn.qkv.", f"{RES}attn.in_proj_"),
    (f"{BLOCK}attn.proj.", f"{RES}attn.out_proj."),
    (f"{BLOCK}mlp.fc1.", f"{RES}mlp.c_fc."),
    (f"{BLOCK}mlp.fc2.", f"{RES}mlp.c_proj."),
    ("model.image_projector.hidden.", "img_projector.linear_hidden.0."),
    ("model.image_projector.norm.", "img_projector.linear_hidden.1."),
    ("model.image_projector.out.", "img_projector.linear_out."),
    ("model.text_projector.hidden.", "text_projector.linear_hidden.0."),
    ("model.text_projector.norm.", "text_projector.linear_hidden.1."),
    ("model.text_projector.out.", "text_projector.linear_out."),
    ("model.logit_scale", "logit_scale"),
    ("model.multi_label_logit_scale", "multi_label_logit_scale"),
)
CONVOLUTIONS = re.compile(r"(img|text)_projector\.linear_(hidden\.0|out)\.weight")

HUB_NAMES = (
    # ours                                   transformers'
    ("model.image.patch.", "vision_model.embeddings.patch_embeddings.projection."),
    ("model.image.patch_norm.", "vision_model.embeddings.layernorm."),
    ("model.image.positions", "vision_model.embeddings.position_embeddings"),
    ("model.image.norm.", "vision_model.layernorm."),
    (f"{STAGE}group_tokens", f"{HUB}group_token"),
    (f"{STAGE}token_projector.", f"{HUB}group_projector."),
    (f"{STAGE}blocks.*.norm1.", f"{HUB}layers.*.layer_norm1."),
    (f"{STAGE}blocks.*.norm2.", f"{HUB}layers.*.layer_norm2."),
    (f"{STAGE}blocks.*.attn.proj.", f"{HUB}layers.*.self_attn.out_proj."),
    (f"{STAGE}blocks.*.attn.", f"{HUB}layers.*.self_attn."),
    (f"{STAGE}blocks.*.mlp.", f"{HUB}layers.*.mlp."),
    (f"{STAGE}grouping.norm_tokens.", f"{HUB}downsample.norm_tokens."),
    (f"{STAGE}grouping.mixer.", f"{HUB}downsample.mlp_inter."),
    (f"{STAGE}grouping.norm_post_tokens.", f"{HUB}downsample.norm_post_tokens."),
    (f"{STAGE}grouping.norm_x.", f"{HUB}downsample.norm_x."),
    (f"{STAGE}grouping.pre_assign.", f"{HUB}downsample.pre_assign_attn."),
    (f"{STAGE}grouping.pre_assign.attn.proj.", f"{HUB}downsample.pre_assign_attn.attn.out_proj."),
    (f"{STAGE}grouping.assign.", f"{HUB}downsample.assign."),
    (f"{STAGE}grouping.norm_new.", f"{HUB}downsample.norm_new_x."),
    (f"{STAGE}grouping.mlp.", f"{HUB}downsample.mlp_channels."),
    (f"{STAGE}grouping.reduction.", f"{HUB}downsample.reduction."),
    ("model.text.tokens.", "text_model.embeddings.token_embedding."),
    ("model.text.positions", "text_model.embeddings.position_embedding.weight"),
    ("model.text.norm.", "text_model.final_layer_norm."),
    (f"{BLOCK}norm1.", f"{HUB_TEXT}layer_norm1."),
    (f"{BLOCK}norm2.", f"{HUB_TEXT}layer_norm2."),
    (f"{BLOCK}attn.proj.", f"{HUB_TEXT}self_attn.out_proj."),
    (f"{BLOCK}attn.", f"{HUB_TEXT}self_attn."),
    (f"{BLOCK}mlp.", f"{HUB_TEXT}mlp."),
    ("model.image_projector.hidden.", "visual_projection.0."),
    ("model.image_projector.norm.", "visual_projection.1."),
    ("model.image_projector.out.", "visual_projection.3."),
    ("model.text_projector.hidden.", "text_projection.0."),
    ("model.text_projector.norm.", "text_projection.1."),
    ("model.text_projector.out.", "text_projection.3."),
    ("model.logit_scale", "logit_scale"),
)
POSITION_IDS = ".embeddings.position_ids"
MULTI_LABEL_SCALE = "model.multi_label_logit_scale"
BLOCKS = r".+\.blocks\.\d+\.attn\."
"""Attention whose queries, keys and values are one projection here."""


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under the names of a GroupViTTask. Raises DataError on leftovers."""
    flat = {key: value.squeeze(-1) if CONVOLUTIONS.fullmatch(key) else value for key, value in state.items()}
    return renamed(flat, NAMES, back=True)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse. Raises DataError on keys that are none of ours."""
    found = renamed(state, NAMES)
    return {key: value.unsqueeze(-1) if CONVOLUTIONS.fullmatch(key) else value for key, value in found.items()}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a GroupViTModel under the names of a GroupViTTask.

    Raises:
        DataError: Unknown names, or attention without all of queries, keys and values.
    """
    kept = {key: value for key, value in state.items() if not key.endswith(POSITION_IDS)}
    return with_joined_attention(renamed(kept, HUB_NAMES, back=True), "qkv.", BLOCKS)


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, without the temperature of the multi-label contrast. Raises DataError on keys that are none of ours."""
    kept = {key: value for key, value in state.items() if key != MULTI_LABEL_SCALE}
    return renamed(with_split_attention(kept, "qkv.", BLOCKS), HUB_NAMES)


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of transformers."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in state)


def load_official(path: Path) -> dict[str, Tensor]:
    """The weights of an official file, or of one of transformers, under our names.

    Raises:
        DataError: Naming the file: see `read_weights`; leftovers.
    """
    with about(path):
        state = read_weights(path)
        return from_transformers(state) if is_transformers(state) else from_official(state)
