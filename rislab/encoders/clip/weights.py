"""Files of CLIP weights: OpenAI's and transformers' names; and what tells one set of weights from another."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rislab.encoders.clip.transformers_names import from_transformers, is_transformers
from rislab.errors import about
from rislab.nn.weight_files import is_torchscript, read_weights

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's state dicts hold beside the weights."""
CONSTANTS = ("attn_mask",)
"""Buffers that TorchScript saves and a state dict of ours does not have."""


@dataclass(frozen=True, eq=False)
class CLIPFile:
    """The content of a file of CLIP weights.

    Attributes:
        state: Tensors under OpenAI's names, which are open_clip's.
        is_openai_archive: Whether the file is an archive as OpenAI has released them: TorchScript, with `OPENAI_EXTRAS`.
    """

    state: dict[str, Tensor]
    is_openai_archive: bool


def read_clip(path: Path) -> CLIPFile:
    """The weights of a CLIP in a file.

    Args:
        path: An archive of OpenAI's, a checkpoint of open_clip, or weights of transformers' CLIPModel.

    Raises:
        DataError: See `read_weights`; transformers' weights with unknown names.
    """
    state = read_weights(path)
    is_openai = state.keys() >= set(OPENAI_EXTRAS) and is_torchscript(path)
    state = {key: value for key, value in state.items() if key not in OPENAI_EXTRAS + CONSTANTS}
    with about(path):
        return CLIPFile(from_transformers(state) if is_transformers(state) else state, is_openai)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """The sha256 of weights and buffers, by name and content: it does not depend on the order or the file format."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
