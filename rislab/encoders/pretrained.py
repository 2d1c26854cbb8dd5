"""Weights that are made from a recipe on first use and cached under a name that holds the recipe's hash.

A tiny encoder is a recipe (a dataclass), a function that trains it, and a `VERSION` number that its spec declares in
`hashed_with`. `encoders/clip/tiny.py` and `encoders/bert/tiny.py` are examples.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rislab.files import cache_dir, replacing
from rislab.messages import preparing

SECONDS = 60.0
"""What pretraining takes at most, on one core of a server."""


def cached_file(folder: str, name: str, recipe: Mapping[str, Any]) -> Path:
    """The path of cached weights.

    Args:
        folder: Below the cache folder, `clip`.
        name: Of the model.
        recipe: All that decides about the weights, a version number of the code included; plain JSON values.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return cache_dir() / folder / f"{name}-{digest}.safetensors"


def made_once(path: Path, make: Callable[[], dict[str, Tensor]]) -> Path:
    """The file of weights, made now if it is not there; other processes that need it wait meanwhile.

    Args:
        path: See `cached_file`.
        make: Trains the model and returns its state dict.
    """
    if is_whole(path):  # also in a cache that is read-only
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not is_whole(path):
            preparing(f"pretraining {path.stem.rpartition('-')[0]}", SECONDS, str(path.parent))
            state = make()
            with replacing(path) as temporary:
                save_file(state, temporary)
    return path


def is_whole(path: Path) -> bool:
    """Whether the file exists and is as long as its header says; a damaged one is made again."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed torch inside, and leave the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside: sums are rounded otherwise for another number of threads, and weights differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
