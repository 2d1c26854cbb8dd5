"""Official weights: kakaobrain/tcl, `tcl.pth`. The release holds what was trained; CLIP itself comes from OpenAI."""

import math
from pathlib import Path

import torch
from torch import Tensor

from rislab.errors import about
from rislab.nn.renaming import renamed
from rislab.nn.weight_files import read_weights

MASKER = "masker.image_encoder."
CLIP = "clip_image_encoder."
GATED = "model.grounder.decoder.stages.*."
NAMES = (
    # ours                           theirs
    ("model.grounder.blocks.", f"{MASKER}backbone.transformer.resblocks."),
    (f"{GATED}0.", f"{MASKER}decoder.decoder.net.*.conv."),
    (f"{GATED}1.", f"{MASKER}decoder.decoder.net.*.conv2."),
    (f"{GATED}0.gate", f"{MASKER}decoder.decoder.net.*.conv.gate.gate"),
    (f"{GATED}1.gate", f"{MASKER}decoder.decoder.net.*.conv2.gate.gate"),
    ("model.grounder.ln.", f"{MASKER}decoder.image_proj.ln."),
    ("model.grounder.proj", f"{MASKER}decoder.image_proj.proj"),
    ("model.grounder.to_mask.", "masker.sim2mask."),
    ("image_scale", "tcli_loss.logit_scale"),
    ("region_scale", "tclf_loss.logit_scale"),
    ("model.tower.visual.", f"{CLIP}clip_visual."),
    ("model.tower.visual.ln_post.", f"{CLIP}clip_proj.ln."),
    ("model.tower.visual.proj", f"{CLIP}clip_proj.proj"),
    ("prompts.clip.", "clip_text_encoder."),
)
TEMPERATURES = ("image_scale", "region_scale")


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the official model, whole or as released, under the names of a TCLTask.

    Constant kernels of PAMR, which some training checkpoints hold, are dropped. Temperatures, which a release may lack, get the
    value that they start with: they play no role in inference.
    """
    ours = renamed({key: value for key, value in state.items() if not key.startswith("pamr.")}, NAMES, back=True)
    return {name: torch.tensor(math.log(1 / 0.07)) for name in TEMPERATURES} | ours


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse. Raises DataError on keys that are none of ours."""
    return renamed(state, NAMES)


def load_official(path: Path) -> dict[str, Tensor]:
    """Raises DataError, naming the file: see `read_weights`; leftovers."""
    with about(path):
        return from_official(read_weights(path))
