"""Training texts and pictures through their encoders: nothing is encoded twice, and memory can be that of a part of the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rislab.methods.groupvit.grouping import Assignment
from rislab.methods.groupvit.model import GroupViT
from rislab.nn.matrix_products import checkpointed

BUCKET = 16
"""Texts are encoded together with those whose lengths agree up to the next multiple of it."""


def pooled(model: GroupViT, pixels: Tensor, *noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean segments [B, C] of normalised pixels [B, 3, H, W], and `usage`. noise: see `ImageEncoder.forward`."""
    found = model.image(pixels, noise)
    return found.tokens.mean(1), usage(found.assignments)


@torch.no_grad()
def usage(assignments: Sequence[Assignment]) -> Tensor:
    """What tells a collapse, [stages, 2]: groups of a picture that have a member, on average; and how undecided tokens are.

    The second is the entropy of a token's shares, without noise, as a share of its largest value: 0 decided, 1 undecided.
    """
    rows = []
    for each in assignments:
        members = torch.zeros(each.used.shape[:2], device=each.used.device).scatter_(1, each.used.argmax(1), 1.0)
        entropy = -(each.soft * each.soft.clamp_min(1e-12).log()).sum(1).mean()
        rows.append(torch.stack([members.sum(1).mean(), entropy / torch.tensor(float(each.soft.shape[1])).log()]))
    return torch.stack(rows) if rows else torch.zeros(0, 2)


def encode_images(
    model: GroupViT, pixels: Tensor, noise: Sequence[Tensor] = (), micro_batch: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean segments [B, C] and `usage`.

    With `micro_batch`, so many pictures are in memory together: their activations are dropped, and computed again, with the same
    draws, when gradients come back from the loss of the whole batch. Gradients are those of the whole batch (gradient caching,
    Gao et al. 2021, arXiv 2101.06983): the batch norms, which look across pictures, stand behind the encoders.
    """
    if micro_batch is None or len(pixels) <= micro_batch:
        return pooled(model, pixels, *noise)
    parts = zip(*(each.split(micro_batch) for each in (pixels, *noise)), strict=True)
    found = [checkpointed(pooled, model, *part) for part in parts]
    return torch.cat([each for each, _ in found]), torch.stack([each for _, each in found]).mean(0)


def encode_texts(model: GroupViT, ids: Tensor, micro_batch: int | None = None) -> Tensor:
    """States [N, W] of token ids int64 [N, L], on the CPU.

    A text that is there twice is encoded once. Texts of similar length are encoded together and cut behind the longest: attention
    is causal, so padding changes nothing, and neither does what follows.

    Args:
        micro_batch: texts in memory together; see `encode_images`.
    """
    device = model.logit_scale.device
    texts, place = ids.unique(dim=0, return_inverse=True)
    lengths = texts.argmax(1) + 1  # the end token has the largest id
    order, found = [], []
    for bucket in ((lengths - 1) // BUCKET).unique().tolist():
        rows = ((lengths - 1) // BUCKET == bucket).nonzero()[:, 0]
        for some in rows.split(micro_batch or len(rows)):
            cut = texts[some, : int(lengths[some].max())].to(device, non_blocking=True)
            caching = micro_batch is not None and len(texts) > micro_batch
            found.append(checkpointed(model.text, cut) if caching else model.text(cut))
            order.append(some)
    back = torch.cat(order).argsort()[place]
    return torch.cat(found)[back.to(device)]
