"""Co-segmentation: the patch that all pictures of a class have in common.

Pictures are few (k), patches many (k h w), so the k h w x k h w cosines are never held: only, for each patch, its best match in
each picture.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rislab.methods.reco.model import resized

Columns = Literal["image", "official_slice"]
OwnImage = Literal["keep", "drop"]
RefType = Literal["avg", "weighted", "winner"]


@dataclass(frozen=True)
class Cosegmentation:
    """What co-segmentation finds in k pictures.

    Attributes:
        weights: w, of each patch, [k, h, w].
        matched: m, for each patch the best match in each picture, [k, h, w, k].
        patch_score: s, mean of m over pictures, [k, h, w].
        seeds: Row and column of the patch with the highest s in each picture, int64 [k, 2].
        reference: Unit vector [D].
    """

    weights: Tensor
    matched: Tensor
    patch_score: Tensor
    seeds: Tensor
    reference: Tensor


def cosegment(
    features: Tensor,
    attention: Tensor | None,
    contexts: Tensor,
    columns: Columns = "image",
    own_image: OwnImage = "keep",
    ref_type: RefType = "avg",
) -> Cosegmentation:
    """The reference of a class.

    Args:
        features: Encoder features of its k pictures in rank order, not normalised, [k, D, h, w].
        attention: Closeness of their patches to the class's name in dense CLIP, [k, h', w']; None without language guidance.
        contexts: References of what is to be eliminated, [C, D]; C may be 0.
        columns: Where the best match in picture j is looked for: in picture j, or as the released code slices.
        own_image: Whether a picture's match with itself counts.
        ref_type: How seeds become one vector.
    """
    units = F.normalize(features, dim=1)
    weights = patch_weights(units, attention, contexts)
    m = matches(units, weights)
    if columns == "official_slice":
        m = sliced_as_released(m)
    s = mean_match(m, own_image)
    seeds = best_patches(s)
    return Cosegmentation(weights, m, s, seeds, reference(features, seeds, ref_type))


def patch_weights(units: Tensor, attention: Tensor | None, contexts: Tensor) -> Tensor:
    """w [k, h, w]: the attention, brought to the encoder's grid, times 1 - sigmoid(cosine) for every context.

    Contexts have no temperature: each factor lies in [0.27, 0.73], a soft ranking and no mask.
    """
    w = units.new_ones(units[:, 0].shape)
    if attention is not None:
        w = w * resized(attention[:, None], (units.shape[-2], units.shape[-1]))[:, 0]
    if len(contexts):
        # 1 - sigmoid(c) = sigmoid(-c)
        w = w * (-torch.einsum("kdhw,cd->kchw", units, contexts)).sigmoid().prod(1)
    return w


def matches(units: Tensor, weights: Tensor) -> Tensor:
    """m [k, h, w, k]: the highest weighted cosine with a patch of each picture. The weight is the matched patch's alone."""
    k, _, height, width = units.shape
    patches = units.flatten(2).transpose(1, 2)  # [k, h w, D]
    everything = patches.reshape(k * height * width, -1)
    weighted = patches * weights.flatten(1)[..., None]
    found = [(everything @ weighted[j].T).amax(1) for j in range(k)]
    return torch.stack(found, 1).view(k, height, width, k)


def sliced_as_released(m: Tensor) -> Tensor:
    """The released code's columns of picture j reach from j h w to (j + 1) h w beyond that: the best of pictures j to 2 j."""
    k = m.shape[-1]
    return torch.stack([m[..., j : min(2 * j + 1, k)].amax(-1) for j in range(k)], -1)


def mean_match(m: Tensor, own_image: OwnImage) -> Tensor:
    """s [k, h, w]: the mean of m over pictures, or over the other pictures."""
    k = m.shape[-1]
    if own_image == "keep" or k == 1:
        return m.mean(-1)
    own = torch.stack([m[i, ..., i] for i in range(k)])
    return (m.sum(-1) - own) / (k - 1)


def best_patches(s: Tensor) -> Tensor:
    """Seeds, int64 [k, 2]: row and column of the largest s of each picture, one also where the class is missing."""
    best = s.flatten(1).argmax(1)
    width = s.shape[2]
    return torch.stack([best // width, best % width], 1)


def reference(features: Tensor, seeds: Tensor, ref_type: RefType) -> Tensor:
    """Unit vector [D] of the seeds' features, which are not normalised before.

    avg: their mean. weighted: weights 1 - i / k by rank i from 0. winner: the seed with the largest sum of cosines to the others.
    """
    k = len(features)
    picked = features[torch.arange(k, device=features.device), :, seeds[:, 0], seeds[:, 1]]  # [k, D]
    if ref_type == "winner":
        units = F.normalize(picked, dim=1)
        return units[(units @ units.T).sum(1).argmax()]
    if ref_type == "weighted":
        picked = picked * (1 - torch.arange(k, device=features.device) / k)[:, None]
    return F.normalize(picked.mean(0), dim=0)
