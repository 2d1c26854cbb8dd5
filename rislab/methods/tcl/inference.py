"""Inference of TCL: pictures are encoded once, then any texts get their masks from that."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rislab.methods.tcl.model import TCL, likeness, unit
from rislab.nn.pamr import affinity, refined
from rislab.nn.sliding import Margins, cut

KEPT_CLIP = (10.0, -2.5)
"""Scale and shift of CLIP's own map where it is mixed in: sigmoid(10 (cosine - 0.25))."""


@dataclass(frozen=True)
class EncodedImages:
    """Pictures without their texts.

    Attributes:
        pixels: unit embeddings V^s, float32 [I, D, h, w].
        clip: the frozen tower's, [I, D, h', w'], where they are mixed in.
        affinity: of the pictures at V^s's size, where masks are refined.
        size: of the pictures with what was padded around them.
    """

    pixels: Tensor
    clip: Tensor | None
    affinity: Tensor | None
    size: tuple[int, int]
    margins: Margins


def encode_images(model: TCL, images: Tensor, refines: bool, keeps_clip: bool) -> EncodedImages:
    """Normalised images [I, 3, H, W]; sides that are no multiples of the patch are padded with zeros on both sides."""
    down, right = (-side % model.tower.patch for side in images.shape[-2:])
    above, left = down // 2, right // 2
    padded = F.pad(images, (left, right - left, above, down - above))
    tokens, grid = model.frozen(padded)
    pixels = unit(model.grounder(tokens, grid).float())
    guide = F.interpolate(padded, pixels.shape[-2:], mode="bilinear", align_corners=True) if refines else None
    return EncodedImages(
        pixels,
        unit(model.clip_features(tokens, grid).float()) if keeps_clip else None,
        None if guide is None else affinity(guide),
        (padded.shape[-2], padded.shape[-1]),
        (above, down - above, left, right - left),
    )


def masks(model: TCL, encoded: EncodedImages, texts: Tensor, iterations: int, kp_w: float) -> Tensor:
    """Masks [I, C, h, w] in [0, 1] of texts [C, D], margins included. kp_w: CLIP's share, mixed in after the refinement."""
    found = model.grounder.to_mask.logits(likeness(encoded.pixels, texts)).sigmoid()
    if encoded.affinity is not None:
        found = refined(encoded.affinity, found, iterations)
    if encoded.clip is not None:
        w, b = KEPT_CLIP
        kept = (w * likeness(encoded.clip, texts) + b).sigmoid()
        found = kp_w * F.interpolate(kept, found.shape[-2:], mode="bilinear", align_corners=False) + (1 - kp_w) * found
    return found


def without_margins(found: Tensor, encoded: EncodedImages) -> Tensor:
    """The masks as they are where nothing was padded, else cut, and so at full size."""
    if not any(encoded.margins):
        return found
    return cut(F.interpolate(found, encoded.size, mode="bilinear", align_corners=False), encoded.margins)
