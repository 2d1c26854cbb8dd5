"""Contrast of pictures, or of regions in them, with texts, over the pairs of all processes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.ranks import gathered, world

TextSide = Literal["official", "exact"]


def symmetric_cross_entropy(image_to_text: Tensor, text_to_image: Tensor) -> Tensor:
    """Mean of both directions' cross entropies.

    all images. The right answers lie in the columns of this process, in order.

    Args:
        image_to_text: logits [B, N] of own images against the texts of all processes.
        text_to_image: [B, N] of own texts against
    """
    rows = len(image_to_text)
    right = torch.arange(rows, device=image_to_text.device) + world()[0] * rows
    return (F.cross_entropy(image_to_text, right) + F.cross_entropy(text_to_image, right)) / 2


def image_text(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE of pairs, [B, D] and [B, D], any length; scale: factor of the cosines.

    Source: van den Oord et al. 2018; Radford et al., ICML 2021, section 2.3. As TCL's image level, Cha et al., CVPR 2023.
    """
    image, text = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    return symmetric_cross_entropy(scale * image @ gathered(text).T, scale * text @ gathered(image).T)


def region_text(regions: Tensor, texts: Tensor, scale: Tensor, text_side: TextSide) -> Tensor:
    """InfoNCE of regions, each cut out of an image by a text, with that text: TCL's feature level (Cha et al., CVPR 2023).

    Args:
        regions: [B, N, D], of own image i under text j of all processes.
        texts: [N, D] of all processes, by rank.
        text_side: against which regions of other processes an own text is held. `exact`: the other image under the own text, as
            the formula has it; `official`: the other image under the text that has the same place in the other process's batch,
            as the released code has it. With one process there is no difference.
    """
    own = slice(world()[0] * len(regions), (world()[0] + 1) * len(regions))
    region, text = F.normalize(regions, dim=-1), F.normalize(texts, dim=-1)
    cosines = torch.einsum("bnd,nd->bn", region, text)
    if text_side == "exact":
        backwards = gathered(cosines)[:, own].T
    else:
        backwards = torch.einsum("nbd,bd->bn", gathered(region[:, own]), text[own])
    return symmetric_cross_entropy(scale * cosines, scale * backwards)
