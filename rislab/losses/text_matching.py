"""CLIMS's losses of cosines between masked pictures and texts (Xie et al., CVPR 2022, section 3.3), in both official forms.

The paper sums over classes and prompts. Both codes average OTM and BTM over the n instances of a batch; CBS is a sum over
instances in both, and over prompts a sum in `repo` and a mean in `paper`. All are computed in float32: in half precision the
upper bound of a cosine rounds to 1. Weights are the caller's.
"""

import torch
from torch import Tensor

LEAST, MOST = 1e-4, 0.9999
"""Bounds of a cosine in `repo`; the code of the paper has none, and a negative cosine is a NaN there."""


def matched(cosines: Tensor, weights: Tensor | None = None, clamp: bool = True) -> Tensor:
    """OTM: the mean of -w log s. cosines: s_oo, [n], n >= 1. weights: w, [n]; None for 1."""
    s = cosines.float().clamp(LEAST, MOST) if clamp else cosines.float()
    return _mean(-s.log(), weights)


def unmatched(cosines: Tensor, weights: Tensor | None = None, clamp: bool = True) -> Tensor:
    """BTM: the mean of -w log(1 - s). cosines: s_bo, [n], n >= 1. weights: w, [n]; None for 1."""
    s = cosines.float().clamp(LEAST, MOST) if clamp else cosines.float()
    return _mean(-(1 - s).log(), weights)


def suppressed(cosines: Tensor, threshold: float) -> Tensor:
    """CBS of `repo`: the sum of -log(1 - s) over pairs with s above the threshold. cosines: s_ob, [n, L]."""
    s = cosines.float()
    return torch.where(s > threshold, -(1 - s).log(), 0.0).sum()


def suppressed_own(cosines: Tensor, own: Tensor) -> Tensor:
    """CBS of `paper`: -log(1 - s), averaged over the prompts of an instance's own class, summed over instances.

    Args:
        cosines: s_ob, [n, L].
        own: bool [n, L]; an instance without prompts adds nothing.
    """
    each = torch.where(own, -(1 - cosines.float()).log(), 0.0)
    return (each.sum(1) / own.sum(1).clamp(min=1)).sum()


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else (weights * values).mean()
