"""Checkpoints of isl-org/lang-seg, into our modules and back.

A release is a Lightning checkpoint: `state_dict`, prefix `net.`. It holds all of CLIP, the image tower that nothing reads
included, with matrices in half precision; and weights of the trunk and the coarsest fusion block that nothing reads. Tensors are
passed on as they are: a LSegTask takes half precision for float32 without loss.
"""

import re
from pathlib import Path

from torch import Tensor

from rislab.errors import about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_weights

PREFIX = "net."
"""Of the official network in its Lightning module."""
CLIP = "prompts.clip."

NAMES = (
    # ours                                  official
    (CLIP, "clip_pretrained."),
    ("model.trunk.vit.", "pretrained.model."),
    ("model.trunk.resnet.conv1.", "pretrained.layer1.0."),
    ("model.trunk.resnet.bn1.", "pretrained.layer1.1."),
    ("model.trunk.resnet.layer1.", "pretrained.layer1.4."),
    ("model.trunk.resnet.layer2.", "pretrained.layer2."),
    ("model.trunk.resnet.layer3.", "pretrained.layer3."),
    ("model.trunk.resnet.layer4.", "pretrained.layer4."),
    *(
        row
        for ours, theirs in zip(range(4), range(1, 5), strict=True)
        for row in (
            (f"model.trunk.reassemble.{ours}.readout.linear.", f"pretrained.act_postprocess{theirs}.0.project.0."),
            (f"model.trunk.reassemble.{ours}.reduce.", f"pretrained.act_postprocess{theirs}.3."),
            (f"model.trunk.reassemble.{ours}.resample.", f"pretrained.act_postprocess{theirs}.4."),
            (f"model.decoder.lateral.{ours}.", f"scratch.layer{theirs}_rn."),
            (f"model.decoder.fusion.{ours}.of_level.conv", f"scratch.refinenet{theirs}.resConfUnit1.conv"),
            (f"model.decoder.fusion.{ours}.of_level.norm", f"scratch.refinenet{theirs}.resConfUnit1.bn"),
            (f"model.decoder.fusion.{ours}.of_sum.conv", f"scratch.refinenet{theirs}.resConfUnit2.conv"),
            (f"model.decoder.fusion.{ours}.of_sum.norm", f"scratch.refinenet{theirs}.resConfUnit2.bn"),
            (f"model.decoder.fusion.{ours}.out.", f"scratch.refinenet{theirs}.out_conv."),
        )
    ),
    ("model.head.", "scratch.head1."),
    ("model.regulariser.conv.", "scratch.head_block.depthwise.depthwise."),
)

IN_FLOAT32 = re.compile(
    r"(^|\.)(ln_\w+|bn\d|downsample\.1|token_embedding)\.|(positional|class)_embedding$|logit_scale$"
)
"""Names in CLIP of what stays in float32 on a GPU: norms, embeddings and the temperature."""


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict, with or without `net.`, under the names of a LSegTask. Raises DataError on leftovers."""
    return renamed({key.removeprefix(PREFIX): value for key, value in state.items()}, NAMES, back=True)


def to_official(state: dict[str, Tensor], half_clip: bool = False) -> dict[str, Tensor]:
    """The inverse, without `net.`.

    Args:
        state: Of a LSegTask.
        half_clip: Give CLIP's matrices in half precision, as a release has them that was trained on GPUs.
    """
    if half_clip:
        state = {key: value.half() if _is_half(key) else value for key, value in state.items()}
    return renamed(state, NAMES)


def _is_half(key: str) -> bool:
    return key.startswith(CLIP) and not IN_FLOAT32.search(key.removeprefix(CLIP))


def load_official(path: Path) -> dict[str, Tensor]:
    """The state of a release file under our names. Raises DataError, naming the file: see `read_weights`; leftovers."""
    with about(path):
        return from_official(read_weights(path))
