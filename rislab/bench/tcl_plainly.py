"""TCL's label maps in the plain way of its official code, which `rislab.bench.label_maps` compares with ours.

Source: kakaobrain/tcl (models/tcl, sclip, segmentation/evaluation) with mmsegmentation's sliding windows, read and not copied.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip import dense
from rislab.methods.tcl import inference, model
from rislab.methods.tcl.task import TCLTask
from rislab.nn.pamr import DILATIONS
from rislab.nn.sliding import boxes


def under_a_diagonal_mask(block: Any, x: Tensor, which: Literal[0, 1, 2]) -> Tensor:
    """`projected` of values, by attention of all tokens to all, of which a mask leaves each its own."""
    assert which == 2, "attention mixes values"
    own = torch.full((x.shape[1], x.shape[1]), -torch.inf, device=x.device).fill_diagonal_(0)
    return dense.attended(block, x, own)


def decoded_at_full_size(self: model.GroundingDecoder, x: Tensor) -> Tensor:
    """`GroundingDecoder.forward` with every convolution behind the doubling."""
    for stage in self.stages:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        assert isinstance(stage, nn.ModuleList)
        for conv in stage:
            x = conv(x)
    return x


def refined_with_copies(
    weights: Tensor, masks: Tensor, iterations: int = 10, dilations: Sequence[int] = DILATIONS
) -> Tensor:
    """`rislab.nn.pamr.refined` with a copy of each mask for each neighbour, made by convolutions."""
    kernel = torch.eye(9, device=masks.device).view(9, 1, 3, 3)[[0, 1, 2, 3, 5, 6, 7, 8]]
    shape = masks.shape
    for _ in range(iterations):
        alone = masks.reshape(-1, 1, *shape[-2:])
        copies = [F.conv2d(F.pad(alone, (d, d, d, d), mode="replicate"), kernel, dilation=d) for d in dilations]
        masks = (weights[:, None] * torch.cat([each.view(*shape[:2], 8, *shape[-2:]) for each in copies], 2)).sum(2)
    return masks


@contextmanager
def plainly() -> Iterator[None]:
    """TCL computes as its official code inside."""
    with ExitStack() as stack:
        for owner, name, plain in (
            (dense, "projected", under_a_diagonal_mask),
            (model, "projected", under_a_diagonal_mask),
            (model.GroundingDecoder, "forward", decoded_at_full_size),
            (inference, "refined", refined_with_copies),
        ):
            stack.enter_context(patch.object(owner, name, plain))
        yield


def label_map(method: TCLTask, image: Tensor, names: Sequence[str], window: int, stride: int) -> Tensor:
    """The class of each pixel, int64 [H, W], of a picture uint8 [3, H, W]: scores of all names at all pixels of all windows."""
    size = image.shape[-2], image.shape[-1]
    total, seen = torch.zeros(1, len(names), *size), torch.zeros(1, 1, *size)
    with plainly():
        for y1, y2, x1, x2 in boxes(*size, window, stride):
            scores = method.segment_vocabulary(image[None, :, y1:y2, x1:x2], names)
            large = F.interpolate(scores, (y2 - y1, x2 - x1), mode="bilinear", align_corners=False)
            total += F.pad(large, (x1, size[1] - x2, y1, size[0] - y2))
            seen[..., y1:y2, x1:x2] += 1
    return F.interpolate(total / seen, size, mode="bilinear", align_corners=False).softmax(1)[0].argmax(0)
