"""Files of CLIP weights, and what tells one set of weights from another."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rislab.errors import DataError


def read_clip(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of weights, safetensors or pickled, bare or wrapped. Raises DataError: missing,
    unreadable, holding code.

    OpenAI's own archives are TorchScript, which runs code when loaded, and are refused: `pretrained: openai` fetches the same
    weights.
    """
    if not path.exists():
        raise DataError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a checkpoint that can be loaded safely ({error})") from error
    # open_clip's own files say `state_dict`, those of segmentation codes often `model`.
    wrapped = next((key for key in ("state_dict", "model") if isinstance(content, dict) and key in content), None)
    state = content if wrapped is None else content[wrapped]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: expected a state dict, found {type(content).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """sha256 of weights and buffers, by name and content: the same wherever and however they are stored."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
