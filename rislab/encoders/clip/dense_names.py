"""OpenAI's names for a CLIP whose image tower is read densely and whose text tower encodes prompts."""

from pathlib import Path

from torch import Tensor

from rislab.encoders.clip.weights import read_clip
from rislab.errors import about
from rislab.nn.renaming import renamed

NAMES = (
    # ours                  OpenAI's
    ("model.tower.visual.", "visual."),
    ("prompts.clip.", ""),
)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP state dict, whole or its image tower alone, under the names of a task with `model.tower` and `prompts`."""
    return renamed(state, NAMES, back=True)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse. Raises DataError on keys that are none of ours."""
    return renamed(state, NAMES)


def load_official(path: Path) -> dict[str, Tensor]:
    """Raises DataError, naming the file: see `read_clip`; leftovers."""
    with about(path):
        return from_official(read_clip(path).state)
