"""Checkpoints of DerrickWang005/CRIS.pytorch, into our modules and back.

A release is a dict whose `state_dict` carries DDP's prefix `module.`. Names differ by the table below and nothing else:
tensors are copied as they are.
"""

from pathlib import Path

import torch
from torch import Tensor

from rislab.errors import about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_weights

PREFIX = "model."
"""Of our keys in a CRISTask."""

NAMES = (
    # ours                          official
    ("trunk.visual.", "backbone.visual."),
    ("trunk.attnpool.", "backbone.visual.attnpool."),
    ("text.", "backbone."),
    ("neck.sentence.", "neck.txt_proj."),
    ("neck.level5.", "neck.f1_v_proj."),
    ("neck.norm5.", "neck.norm_layer.0."),
    ("neck.level4.", "neck.f2_v_proj."),
    ("neck.fuse4.", "neck.f2_cat."),
    ("neck.level3.", "neck.f3_v_proj."),
    ("neck.fuse3.", "neck.f3_cat."),
    ("neck.out5.", "neck.f4_proj5."),
    ("neck.out4.", "neck.f4_proj4."),
    ("neck.out3.", "neck.f4_proj3."),
    ("neck.aggregate.", "neck.aggr."),
    ("neck.coordinates.", "neck.coordconv.0.conv1."),
    ("neck.smooth.", "neck.coordconv.1."),
    ("decoder.norm.", "decoder.norm."),
    ("decoder.layers.*.cross_attn.", "decoder.layers.*.multihead_attn."),
    ("decoder.layers.", "decoder.layers."),
    ("projector.block1.", "proj.vis.1."),
    ("projector.block2.", "proj.vis.3."),
    ("projector.out.", "proj.vis.4."),
    ("projector.head.kernel.", "proj.txt."),
    ("projector.head.classifier.", "proj.classifier."),  # ours: the release has no checkpoint without the contrast
)

UNUSED = {"backbone.logit_scale": torch.tensor(2.6592600)}
"""CLIP's temperature ln(1 / 0.07): present in a release, used by nothing in CRIS, absent in ours."""


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict, with or without `module.`, under the names of a CRISTask. Raises DataError on leftovers."""
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    kept = {key: value for key, value in bare.items() if key not in UNUSED}
    return {PREFIX + ours: value for ours, value in renamed(kept, NAMES, back=True).items()}


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, without `module.`; the unused temperature is put back."""
    kept = {key.removeprefix(PREFIX): value for key, value in state.items()}
    return renamed(kept, NAMES) | UNUSED


def load_official(path: Path) -> dict[str, Tensor]:
    """The state of a release file under our names. Raises DataError, naming the file: see `read_weights`; leftovers."""
    with about(path):
        return from_official(read_weights(path))
