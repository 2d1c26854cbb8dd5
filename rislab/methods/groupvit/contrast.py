"""The two contrasts that GroupViT is trained by: pictures with their captions, and with prompted nouns of them."""

import torch
from torch import Tensor

from rislab.losses import multi_label as multi_label_loss
from rislab.losses.contrastive import image_text
from rislab.methods.groupvit.inference import scale_of
from rislab.methods.groupvit.model import GroupViT


def contrasts(model: GroupViT, images: Tensor, states: Tensor, multi_label_weight: float) -> dict[str, Tensor]:
    """`contrast`, and `multi_label` where there are prompted nouns.

    Source: Xu et al., CVPR 2022, section 3.2; official code, models/multi_label_contrastive.py.

    Args:
        model: whose projectors and temperatures are used. The batch norms see all pictures, and captions together with their
            prompts.
        images: mean segments [B, C].
        states: of texts, [B, 1 + K, W], captions first.
        multi_label_weight: of the second contrast.

    Returns:
        Scalars, in float32.
    """
    image = model.image_projector(images).float()
    text = model.text_projector(states.flatten(0, 1)).float().unflatten(0, states.shape[:2])
    with torch.autocast(image.device.type, enabled=False):
        scale = scale_of(model.logit_scale)
        terms = {"contrast": image_text(image, text[:, 0], scale)}
        if text.shape[1] > 1:
            own = model.multi_label_logit_scale
            scale = scale if own is None else scale_of(own)
            terms["multi_label"] = multi_label_weight * multi_label_loss.multi_label(image, text[:, 1:], scale)
    return terms
