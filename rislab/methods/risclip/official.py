"""There is no official release of RISCLIP; what can be had from elsewhere is its frozen trunk, CLIP, under OpenAI's names."""

from pathlib import Path

from torch import Tensor

from rislab.errors import DataError
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_weights

NAMES = (
    # ours                         OpenAI's
    ("model.towers.image.visual.", "visual."),
    ("model.towers.clip.", ""),
)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP state dict under the names of a RISCLIPTask's trunk; the parts that RISCLIP trains are not in it."""
    return renamed(state, NAMES, back=True)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trunk under OpenAI's names; what RISCLIP trains is left out."""
    return renamed({key: value for key, value in state.items() if key.startswith(tuple(o for o, _ in NAMES))}, NAMES)


def load_official(path: Path) -> dict[str, Tensor]:
    """Raises DataError: CLIP's weights alone are no RISCLIP."""
    read_weights(path)
    raise DataError(f"{path}: no RISCLIP was ever released; clip.pretrained takes a file of CLIP's weights")
