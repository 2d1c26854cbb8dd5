"""Activation maps of the classes that an image-level label names: four scales, each with its mirror image (IRN's protocol).

Source: jiwoon-ahn/irn, step/make_cam.py, as CLIMS uses it. Different here: maps of other classes are never computed, where the
official code enlarges all of them; batch norm is folded into the convolutions (`rislab.encoders.resnet.normed`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE, MULTIPLE = 4, 16
"""Of the small maps; and what the sides of the large ones are a multiple of before they are cut."""
LEAST = 1e-5
"""Added to a map's maximum before it is divided by it."""


@dataclass(frozen=True)
class ActivationMaps:
    """Maps of one picture, each with a maximum of about 1.

    Attributes:
        classes: int64 [k], numbers of classes from 0, ascending.
        small: float32 [k, ceil(H / 4), ceil(W / 4)], what a random walk refines.
        full: float32 [k, H, W].
    """

    classes: Tensor
    small: Tensor
    full: Tensor


def scaled(image: Tensor, scale: float) -> Tensor:
    """A picture uint8 [3, H, W] at another scale: cubic, antialiased, rounded to 0..255, as Pillow does it."""
    if scale == 1:
        return image
    size = round(image.shape[-2] * scale), round(image.shape[-1] * scale)
    found = F.interpolate(image[None].float(), size, mode="bicubic", antialias=True, align_corners=False)
    return found[0].round().clamp(0, 255).to(torch.uint8)


def activated(logits: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    """relu(logits) of a picture plus those of its mirror image, mirrored back: [k, h, w].

    Args:
        logits: Pixels [2, 3, H, W] -> [2, k, h, w].
        picture: Normalised, [3, H, W].
    """
    plain, mirror = F.relu(logits(torch.stack([picture, picture.flip(-1)])).float())
    return plain + mirror.flip(-1)


def summed(maps: Sequence[Tensor], classes: Tensor, size: tuple[int, int]) -> ActivationMaps:
    """Maps [k, h, w] of all scales, as one map a class.

    Args:
        maps: As of `activated`.
        classes: int64 [k].
        size: H, W of the picture.
    """
    height, width = size

    def at(target: tuple[int, int]) -> Tensor:
        if not len(classes):
            return maps[0].new_zeros(0, *target)
        large = [F.interpolate(each[None], target, mode="bilinear", align_corners=False)[0] for each in maps]
        return torch.stack(large).sum(0)

    small = at((-(-height // STRIDE), -(-width // STRIDE)))
    full = at((-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE))[:, :height, :width]
    return ActivationMaps(classes, _relative(small), _relative(full))


def activation_maps(
    network: nn.Module, normalise: Callable[[Tensor], Tensor], image: Tensor, classes: Tensor, scales: Sequence[float]
) -> ActivationMaps:
    """The maps of the classes that a picture shows; without a class the network is not run.

    Args:
        network: Pixels [2, 3, h, w] and classes [k] -> logits [2, k, h', w'].
        normalise: uint8 [3, h, w] -> float32 [3, h, w].
        image: uint8 [3, H, W].
        classes: int64 [k], columns of the network.
        scales: Of the picture.
    """
    height, width = image.shape[-2:]
    if len(classes):
        maps = [activated(lambda x: network(x, classes), normalise(scaled(image, scale))) for scale in scales]
    else:
        maps = [torch.zeros(0, 1, 1, device=image.device)]
    return summed(maps, classes, (height, width))


def labelled(maps: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Labels int64 [H, W]: 0 where no map [k, H, W] is above the threshold, else 1 + the class of the largest one."""
    if not len(classes):
        return torch.zeros(maps.shape[-2:], dtype=torch.int64, device=maps.device)
    largest, which = maps.max(0)
    return torch.where(largest > threshold, classes[which] + 1, 0)


def _relative(maps: Tensor) -> Tensor:
    return maps / (maps.amax((1, 2), keepdim=True) + LEAST)
