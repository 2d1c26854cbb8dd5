"""Official weights of CVI-SZU/CLIMS, both versions, into our modules and back.

`repo`: a plain state dict in which every tensor of the trunk stands three times and the classifier twice, since modules are
registered several times; baseline (`Net`), `CLIMS` and `CAM` have the same names. `paper` (previous_version): each once, maybe
with DataParallel's `module.`. CLIP is in neither: the judge is a part of the loss and of no state here.
"""

from pathlib import Path

from torch import Tensor

from rislab.errors import about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_weights

PREFIX = "model."
"""Of our keys in a CLIMSTask."""

REPO = (
    # ours            official
    ("trunk.", "resnet50."),
    ("head.classifier.", "classifier."),
)
STAGES = (("trunk.layer1.", "stage1.4."), *((f"trunk.layer{n}.", f"stage{n}.0.") for n in (2, 3, 4)))
COPIES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("trunk.conv1.", "stage1.0."), ("trunk.bn1.", "stage1.1."), *STAGES),
    (
        ("trunk.conv1.", "backbone.0.0."),
        ("trunk.bn1.", "backbone.0.1."),
        ("trunk.layer1.", "backbone.0.4."),
        *((f"trunk.layer{n}.", f"backbone.{n - 1}.0.") for n in (2, 3, 4)),
    ),
    (("head.classifier.", "newly_added.0."),),
)
"""The second and third name of the same tensors."""

PAPER = (
    ("trunk.", ""),
    ("head.bottleneck.", "cam_head.0."),
    ("head.classifier.", "cam_head.1."),
)
DROPPED = ("stage1.", "stage2.", "stage3.", "stage4.", "backbone.", "newly_added.", "resnet50.fc.", "fc.")
"""Copies, and the ImageNet classifier that some files still hold."""


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict of either version under the names of a CLIMSTask. Raises DataError on leftovers."""
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    kept = {key: value for key, value in bare.items() if not key.startswith(DROPPED)}
    table = PAPER if any(key.startswith("cam_head.") for key in kept) else REPO
    return {PREFIX + ours: value for ours, value in renamed(kept, table, back=True).items()}


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, without `module.`; in the repository's version with all copies. Raises DataError on keys that are not ours."""
    kept = {key.removeprefix(PREFIX): value for key, value in state.items()}
    if any(key.startswith("head.bottleneck.") for key in kept):
        return renamed(kept, PAPER)
    found = renamed(kept, REPO)
    for table in COPIES:
        found |= renamed(
            {key: value for key, value in kept.items() if key.startswith(tuple(o for o, _ in table))}, table
        )
    return found


def load_official(path: Path) -> dict[str, Tensor]:
    """The state of a release file under our names. Raises DataError, naming the file: see `read_weights`; leftovers."""
    with about(path):
        return from_official(read_weights(path))
