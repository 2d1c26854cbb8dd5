"""From activation maps to a pseudo mask: a random walk between edges, and a CRF of labels (IRN, step/cam_to_ir_label.py).

The random walk is IRN's with its settings. IRN learns where boundaries are in a training of its own; here they are the picture's
own edges of colour, which needs no training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.nn.dense_crf import Kernels, mean_field

SURE = 0.7
"""Probability of a given label in the unary term of the CRF; the others share the rest (IRN, misc/imutils.py)."""


def colour_boundary(image: Tensor, size: tuple[int, int], srgb: float) -> Tensor:
    """How much of an edge each pixel is, float32 [h, w] in [0, 1].

    Args:
        image: uint8 [3, H, W].
        size: h, w.
        srgb: Difference of neighbours, in grey levels, that is 0.39 of a boundary.
    """
    small = F.adaptive_avg_pool2d(image[None].float(), size)
    padded = F.pad(small, (0, 1, 0, 1), mode="replicate")[0]
    here = padded[:, :-1, :-1]
    largest = torch.maximum(
        (padded[:, :-1, 1:] - here).square().sum(0), (padded[:, 1:, :-1] - here).square().sum(0)
    )  # fmt: skip
    return 1 - torch.exp(-largest / (2 * srgb**2))


def by_colour(mask: Tensor, image: Tensor, labels: int, kernels: Kernels, iterations: int) -> Tensor:
    """A label map after a CRF, uint8 [H, W].

    Args:
        mask: uint8 [H, W], labels from 0.
        image: uint8 [3, H, W].
        labels: How many there are; 2 or more.
        kernels: The pairwise terms.
        iterations: Mean-field updates.
    """
    given = F.one_hot(mask.long(), labels).permute(2, 0, 1).float()
    probability = SURE * given + (1 - SURE) / (labels - 1) * (1 - given)
    return mean_field(probability, image.permute(1, 2, 0), kernels, iterations).argmax(0).to(torch.uint8)
