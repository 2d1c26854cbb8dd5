"""Weights of kazuto1011/deeplab-pytorch, into our modules and back: `base.` of its MSC, or the bare network.

Stages and blocks count from 2 and from 1 there, from 1 and from 0 here; all else is the table below. Colours are BGR there, as in
Caffe: the stem's input channels stay as they are, and the task gives it BGR.
"""

import re
from pathlib import Path

from torch import Tensor, nn

from rislab.errors import about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import fits, read_weights

PREFIX = "model."
"""Of our keys in a DeepLabTask."""

NAMES = (
    # ours               official
    ("trunk.conv1.", "layer1.conv1.conv."),
    ("trunk.bn1.", "layer1.conv1.bn."),
    ("trunk.layer*.*.conv1.", "layer*.block*.reduce.conv."),
    ("trunk.layer*.*.bn1.", "layer*.block*.reduce.bn."),
    ("trunk.layer*.*.conv2.", "layer*.block*.conv3x3.conv."),
    ("trunk.layer*.*.bn2.", "layer*.block*.conv3x3.bn."),
    ("trunk.layer*.*.conv3.", "layer*.block*.increase.conv."),
    ("trunk.layer*.*.bn3.", "layer*.block*.increase.bn."),
    ("trunk.layer*.*.downsample.0.", "layer*.block*.shortcut.conv."),
    ("trunk.layer*.*.downsample.1.", "layer*.block*.shortcut.bn."),
    ("aspp.convs.*.", "aspp.c*."),
)
STAGE = re.compile(r"layer(\d+)\.(block)?(\d+)\.")
WRAPPERS = ("module.", "base.")


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under the names of a DeepLabTask. Raises DataError on leftovers."""
    bare = {_bare(key): value for key, value in state.items()}
    shifted = {STAGE.sub(lambda m: _stage(m, -1), key): value for key, value in bare.items()}
    return {PREFIX + ours: value for ours, value in renamed(shifted, NAMES, back=True).items()}


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, with `base.`. Raises DataError on keys that are not ours."""
    found = renamed({key.removeprefix(PREFIX): value for key, value in state.items()}, NAMES)
    return {f"base.{STAGE.sub(lambda m: _stage(m, 1), key)}": value for key, value in found.items()}


def load_official(path: Path) -> dict[str, Tensor]:
    """The state of a release file under our names. Raises DataError, naming the file: see `read_weights`; leftovers."""
    with about(path):
        return from_official(read_weights(path))


def begin(network: nn.Module, path: Path) -> None:
    """Load what a release holds of a network before training: all of it, or all but ASPP (its ImageNet weights).

    Raises:
        DataError: An unreadable file; other keys or shapes than the network's.
    """
    with about(path):
        bare = {key: value for key, value in read_weights(path).items() if not _bare(key).startswith("fc.")}
        state = {key.removeprefix(PREFIX): value for key, value in from_official(bare).items()}
    own = network.state_dict()
    has_aspp = any(key.startswith("aspp.") for key in state)
    fits(path, state, own if has_aspp else {key: value for key, value in own.items() if not key.startswith("aspp.")})
    network.load_state_dict(state, strict=False)


def _stage(match: re.Match[str], shift: int) -> str:
    return f"layer{int(match[1]) + shift}.{match[2] or ''}{int(match[3]) + shift}."


def _bare(key: str) -> str:
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    return key
