"""Inference of GroupViT: a picture is encoded once; pixels belong to groups, groups have classes.

Source: official code, segmentation/evaluation/group_vit_seg.py. It encodes each window twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.data.benchmark_trees import class_names
from rislab.methods.groupvit.grouping import Assignment
from rislab.methods.groupvit.model import GroupViT

MOST_LOGIT_SCALE = 100.0
Maps = Literal["soft", "hard"]


@dataclass(frozen=True)
class EncodedImages:
    """Pictures without their texts.

    Attributes:
        groups: segments of each patch as shares, [I, G, h, w]; None where each patch is its own segment (plain ViT).
        segments: unit embeddings [I, G, D].
        image: unit embedding of the whole picture, [I, D].
        grid: height and width in patches.
        size: height and width of the pictures.
    """

    groups: Tensor | None
    segments: Tensor
    image: Tensor
    grid: tuple[int, int]
    size: tuple[int, int]


def scale_of(log_scale: Tensor) -> Tensor:
    """The factor of cosines; the parameter itself is not clamped."""
    return log_scale.exp().clamp(max=MOST_LOGIT_SCALE)


def composed(assignments: Sequence[Assignment], maps: Maps) -> Tensor | None:
    """Shares of the last groups in each patch, [B, G, h w]: assignments multiplied through; None without any.

    Args:
        maps: `soft` in the code, although features come from hard assignment (issue 22 there: better); the paper says hard.
    """
    found = None
    for assignment in assignments:
        each = assignment.soft if maps == "soft" else assignment.used
        found = each if found is None else each @ found
    return found


def encode_images(model: GroupViT, pixels: Tensor, maps: Maps = "soft") -> EncodedImages:
    """Normalised pixels [I, 3, H, W]."""
    found = model.image(pixels)
    shares = composed(found.assignments, maps)
    return EncodedImages(
        None if shares is None else shares.unflatten(2, found.grid),
        F.normalize(model.embed_segments(found).float(), dim=-1),
        F.normalize(model.image_projector(found.tokens.mean(1)).float(), dim=-1),
        found.grid,
        (pixels.shape[-2], pixels.shape[-1]),
    )


def group_of_pixels(encoded: EncodedImages) -> Tensor:
    """The number of each pixel's group, int64 [I, H, W]: the largest share, maps enlarged first."""
    if encoded.groups is None:
        own = torch.arange(encoded.grid[0] * encoded.grid[1], device=encoded.image.device).view(1, 1, *encoded.grid)
        large = F.interpolate(own.float(), encoded.size, mode="nearest-exact").long()
        return large[0].expand(len(encoded.image), -1, -1)
    return _largest(F.interpolate(encoded.groups, encoded.size, mode="bilinear", align_corners=False))


def _largest(maps: Tensor) -> Tensor:
    """`maps.argmax(1)` of [I, G, H, W], the first of equal ones; map by map, since torch's own strides through memory."""
    best = maps[:, 0].clone()
    index = torch.zeros(best.shape, dtype=torch.int64, device=maps.device)
    for number in range(1, maps.shape[1]):
        index.masked_fill_(maps[:, number] > best, number)
        torch.maximum(best, maps[:, number], out=best)
    return index


def groups(model: GroupViT, pixels: Tensor, maps: Maps) -> dict[str, Tensor]:
    """The group of each patch, int64 [h, w], behind each grouping, of normalised pixels [1, 3, H, W]."""
    found = model.image(pixels)
    shares = (composed(found.assignments[:count], maps) for count in range(1, len(found.assignments) + 1))
    return {
        f"grouping {number}": each[0].argmax(0).unflatten(0, found.grid)
        for number, each in enumerate(shares, 1)
        if each is not None
    }


def class_scores(encoded: EncodedImages, names: Tensor, scale: Tensor, top_classes: int) -> Tensor:
    """Scores [I, G, C] of class names, unit embeddings [C, D], for each group.

    The softmax over the names, times the softmax over those names alone that are among the `top_classes` of the whole picture
    (not in the paper).
    """
    logits = scale * encoded.segments @ names.T
    whole = encoded.image @ names.T  # [I, C]; a softmax would not change the order
    kept = torch.zeros_like(whole, dtype=torch.bool)
    kept.scatter_(1, whole.topk(min(top_classes, len(names)), dim=1).indices, True)
    among = logits.masked_fill(~kept[:, None], -torch.inf)
    return logits.softmax(2) * among.softmax(2)


def with_background(scores: Tensor, threshold: float) -> Tensor:
    """Scores [G, C] of one window -> [G, 1 + C]: background is 1 where no name reaches the threshold, else 0.

    The threshold is at most the highest score: at least one group is a name.
    """
    least = scores.max().clamp(max=threshold)
    return torch.cat([(scores.amax(1, keepdim=True) < least).to(scores.dtype), scores], dim=1)


THRESHOLDS = {"voc": 0.95, "context": 0.35, "coco_things": 0.95}
"""Of background, by the file of class names: official segmentation/configs. The paper prints 0.9 (VOC) and 0.5 (Context)."""
OTHERS = 0.95


def background_threshold(names: Sequence[str]) -> float:
    """The official threshold of the benchmark that has these class names; `OTHERS` for others."""
    known = {
        class_names(file, names_of): level for file, level in THRESHOLDS.items() for names_of in ("mmseg", "groupvit")
    }
    return known.get(tuple(names), OTHERS)


def sentence_cosines(encoded: EncodedImages, sentences: Tensor, image_index: Tensor) -> Tensor:
    """Cosines [N, G] of sentences, unit embeddings [N, D], with the groups of their pictures.

    Args:
        image_index: int64 [N], the picture of each sentence.
    """
    return torch.einsum("ngd,nd->ng", encoded.segments[image_index], sentences)


def mixed(encoded: EncodedImages, each: Tensor, image_index: Tensor) -> Tensor:
    """Values of groups [N, G], mixed by the groups' shares in each patch, [N, h, w]."""
    if encoded.groups is None:
        return each.unflatten(1, encoded.grid)
    return torch.einsum("ng,nghw->nhw", each, encoded.groups[image_index])


def spread(table: Tensor, groups: Tensor) -> Tensor:
    """Scores of groups [I, G, C] at the pixels that belong to them, groups int64 [I, H, W] -> [I, C, H, W]."""
    index = groups.flatten(1)[:, :, None].expand(-1, -1, table.shape[2])
    return table.gather(1, index).transpose(1, 2).unflatten(2, groups.shape[1:])
