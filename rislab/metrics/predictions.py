"""From mask logits to the mask that a convention compares."""

import typing
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rislab.metrics.protocols import Convention
from rislab.metrics.scored_size import at_scored_size


class Undo(typing.Protocol):
    """What a convention needs to know of `rislab.data.geometry.InverseGeometry`."""

    @property
    def input_size(self) -> tuple[int, int]: ...

    @property
    def is_stretched(self) -> bool: ...

    def undo(self, probability: NDArray[np.float32], cubic: bool) -> NDArray[np.float32]: ...


def enlarged(logits: Tensor, size: tuple[int, int], convention: Convention) -> Tensor:
    """Mask logits [N, h, w] -> probabilities float32 [N, H, W].

    The order of sigmoid and interpolation matters: the other one changes Pr@90 (CRIS `engine.inference`).
    Always in float32: autocast would move pixels that lie near the threshold.
    """
    maps = logits.float()[:, None]
    if convention.sigmoid_first:
        maps = torch.sigmoid(maps)
    if maps.shape[-2:] != size:
        maps = F.interpolate(maps, size, mode=convention.interpolation, align_corners=convention.aligned_corners)
    return (maps if convention.sigmoid_first else torch.sigmoid(maps))[:, 0]


def predictions(
    logits: Tensor, placements: Sequence[Undo], convention: Convention, mask_threshold: float
) -> list[NDArray[np.bool_]]:
    """Mask logits [N, h, w] and one placement a query -> N masks, each of the size that the convention compares at.

    A map of a stretched picture is enlarged straight to the convention's square; what was letterboxed returns to the
    original size first, and its mask is stretched then.

    Args:
        mask_threshold: the method's own, for conventions that leave it to the method.
    """
    if not placements:
        return []
    threshold = mask_threshold if convention.threshold is None else convention.threshold
    first = placements[0]
    if convention.side is not None and first.is_stretched:
        square = enlarged(logits, (convention.side, convention.side), convention).cpu().numpy()
        return [np.asarray(one > threshold) for one in square]
    cubic = convention.undo == "cubic"
    framed = enlarged(logits, first.input_size, convention).cpu().numpy()
    found = (where.undo(one, cubic) > threshold for one, where in zip(framed, placements, strict=True))
    return [at_scored_size(mask, convention) for mask in found]
