"""Contrast of pictures with several texts each, over the pairs of all processes: GroupViT's multi-label loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.ranks import gathered, world


def multi_label(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Mean of two cross entropies: each picture against all texts, its own K equally right, and each text against all pictures.

    Source: Xu et al., CVPR 2022, section 3.2; official code, models/multi_label_contrastive.py. From pictures to texts the code
    has the mean of the K log-probabilities, equation 8 the logarithm of their sum; we follow the code.

    Args:
        images: [B, D], any length.
        texts: [B, K, D], any length.
        scale: factor of the cosines.

    Returns:
        A scalar.
    """
    rows, count = texts.shape[:2]
    image, text = F.normalize(images, dim=-1), F.normalize(texts, dim=-1).flatten(0, 1)
    to_texts = (scale * image @ gathered(text).T).log_softmax(1)  # [B, all B K]
    first = world()[0] * rows * count
    own = to_texts[:, first : first + rows * count].unflatten(1, (rows, count)).diagonal().mean()
    right = torch.arange(rows, device=images.device).repeat_interleave(count) + world()[0] * rows
    return (F.cross_entropy(scale * text @ gathered(image).T, right) - own) / 2
