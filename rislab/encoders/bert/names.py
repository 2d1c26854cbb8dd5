"""BERT weights from elsewhere: transformers' files, also of the heads, and names of TensorFlow's time."""

from collections.abc import Mapping

from torch import Tensor

PREFIX = "bert."
"""Of the encoder in files of BERT with a head (BertForPreTraining, BertForMaskedLM)."""
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""As converted from TensorFlow."""
POSITION_IDS = "embeddings.position_ids"
"""A buffer that older versions of transformers saved."""


def from_transformers(state: Mapping[str, Tensor], has_pooler: bool) -> dict[str, Tensor]:
    """The state dict of a `BERT` out of a file's; heads are left out.

    Args:
        state: Of BertModel or of a model with a head, whose encoder has the prefix `bert.`.
        has_pooler: Whether ours has a pooler; else the file's is left out.
    """
    if any(key.startswith(PREFIX) for key in state):
        state = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    found = {}
    for key, value in state.items():
        if key != POSITION_IDS and (has_pooler or not key.startswith("pooler.")):
            old = next((name for name in OLD if key.endswith(name)), None)
            found[key if old is None else key.removesuffix(old) + OLD[old]] = value
    return found


def to_transformers(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The inverse: our names are those of BertModel.

    Args:
        state: Of a `BERT`.
        prefix: `bert.` for the encoder in a model with a head.
    """
    return {f"{prefix}{key}": value for key, value in state.items()}
