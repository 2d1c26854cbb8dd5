"""CRIS's text-to-pixel contrastive loss."""

import torch.nn.functional as F
from torch import Tensor


def text_to_pixel(logits: Tensor, target: Tensor) -> Tensor:
    """Pull the sentence towards the pixels it means, push it from all others; mean over all pixels.

    L = -mean[ m log s(z) + (1 - m) log(1 - s(z)) ], with z the similarity of sentence and pixel, and m the target.
    CRIS section 3.4, eq. 9 and 10: averaged over all pixels the two cases of the paper are binary cross-entropy, and that
    is what the official code computes (no temperature, no negatives from other images; the target stays soft).

    Args:
        logits: [N, h, w].
        target: [N, H, W] in [0, 1], resized to [h, w] by nearest neighbour. Returns a scalar.
    """
    target = F.interpolate(target[:, None], logits.shape[-2:], mode="nearest")[:, 0]
    return F.binary_cross_entropy_with_logits(logits, target)
