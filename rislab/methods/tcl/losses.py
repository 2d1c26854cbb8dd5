"""What TCL's terms need of pictures under texts: their own masks, and the masks of every picture under every text."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.losses.masks import total_variation
from rislab.methods.tcl.model import COSINE_EPS, ToMask, cosines, pooled
from rislab.nn.matrix_products import checkpointed
from rislab.ranks import world

LARGEST_SCALE = 100.0
"""Of the temperatures, as in CLIP."""


class Pairs(NamedTuple):
    """Masks of B pictures under T texts, summed up.

    Attributes:
        regions: Mean embeddings under the masks, [B, T, D].
        areas: Shares of the pictures that the masks cover, [B, T].
        variation: Total variation of the masks, a number.
    """

    regions: Tensor
    areas: Tensor
    variation: Tensor


def pairs(to_mask: ToMask, embeddings: Tensor, texts: Tensor, at_once: int | None) -> Pairs:
    """Every picture under every text.

    Args:
        to_mask: Cosines to mask logits.
        embeddings: Of pixels, [B, D, h, w].
        texts: [T, D].
        at_once: Texts whose masks are in memory together: the others' are computed again for the gradient. None: all.
    """

    def masked(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        masks = to_mask.logits(cosines(embeddings, part)).sigmoid()
        return pooled(embeddings, masks), masks.mean((2, 3)), total_variation(masks)

    parts = texts.split(at_once or len(texts))
    if len(parts) == 1:
        return Pairs(*masked(texts))
    found = [checkpointed(masked, part) for part in parts]
    regions, areas = (torch.cat([part[i] for part in found], dim=1) for i in (0, 1))
    weights = [len(part) / len(texts) for part in parts]
    variation = sum(
        (share * part[2] for share, part in zip(weights, found, strict=True)), torch.zeros_like(areas[0, 0])
    )
    return Pairs(regions, areas, variation)


def own_pairs(areas: Tensor) -> Tensor:
    """Which of [B, T] pairs are a picture with its own text, bool; texts are those of all processes."""
    pictures, texts = (torch.arange(count, device=areas.device) for count in areas.shape)
    return texts == world()[0] * len(areas) + pictures[:, None]


def own_cosines(embeddings: Tensor, texts: Tensor) -> Tensor:
    """Pixels [B, D, h, w], each picture with its own text [B, D] -> [B, h, w]."""
    unit = F.normalize(embeddings, dim=1, eps=COSINE_EPS)
    return torch.einsum("bdhw,bd->bhw", unit, F.normalize(texts, dim=-1, eps=COSINE_EPS))


def scale(log: Tensor) -> Tensor:
    """A temperature from its logarithm."""
    return log.exp().clamp(max=LARGEST_SCALE)
