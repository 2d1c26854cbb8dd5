"""CLIP weights under the names of transformers' CLIPModel, into OpenAI's names and back.

Three things differ beside names: queries, keys and values are three matrices there and one here; the two projections are
transposed; buffers of position ids, which older versions saved, have no counterpart. Only CLIPs with a ViT exist there.
"""

from collections.abc import Mapping

from torch import Tensor

from rislab.nn.renaming import renamed, with_joined_attention, with_split_attention

NAMES = (
    # OpenAI's                              transformers'
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),  # transformers' spelling
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("visual.transformer.resblocks.*.ln_1.", "vision_model.encoder.layers.*.layer_norm1."),
    ("visual.transformer.resblocks.*.ln_2.", "vision_model.encoder.layers.*.layer_norm2."),
    ("visual.transformer.resblocks.*.attn.", "vision_model.encoder.layers.*.self_attn."),
    ("visual.transformer.resblocks.*.mlp.c_fc.", "vision_model.encoder.layers.*.mlp.fc1."),
    ("visual.transformer.resblocks.*.mlp.c_proj.", "vision_model.encoder.layers.*.mlp.fc2."),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
    ("transformer.resblocks.*.ln_1.", "text_model.encoder.layers.*.layer_norm1."),
    ("transformer.resblocks.*.ln_2.", "text_model.encoder.layers.*.layer_norm2."),
    ("transformer.resblocks.*.attn.", "text_model.encoder.layers.*.self_attn."),
    ("transformer.resblocks.*.mlp.c_fc.", "text_model.encoder.layers.*.mlp.fc1."),
    ("transformer.resblocks.*.mlp.c_proj.", "text_model.encoder.layers.*.mlp.fc2."),
    ("logit_scale", "logit_scale"),
)
TRANSPOSED = ("visual.proj", "text_projection")
POSITION_IDS = ".embeddings.position_ids"


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of transformers' CLIPModel."""
    return any(key.startswith(("text_model.", "vision_model.")) for key in state)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPModel's state dict under OpenAI's names.

    Raises:
        DataError: Unknown names, or attention without all of queries, keys and values.
    """
    kept = {key: value for key, value in state.items() if not key.endswith(POSITION_IDS)}
    found = with_joined_attention(renamed(kept, NAMES, back=True), "in_proj_")
    return {key: value.T.contiguous() if key in TRANSPOSED else value for key, value in found.items()}


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse.

    Raises:
        DataError: Names that a CLIP with a ViT does not have.
    """
    turned = {key: value.T.contiguous() if key in TRANSPOSED else value for key, value in state.items()}
    return renamed(with_split_attention(turned, "in_proj_"), NAMES)
