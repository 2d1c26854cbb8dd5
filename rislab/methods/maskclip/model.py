"""MaskCLIP: Extract Free Dense Labels from CLIP. Zhou, Loy, Dai, ECCV 2022, arXiv 2112.01071.

Official code: github.com/chongzhou96/MaskCLIP (a fork of mmsegmentation). Parity: tests/parity, every case of `maskclip`.
Not the MaskCLIP of Ding et al. (panoptic). No training: patch features become local by skipping the last attention, and
their cosines with class texts are the logits.

Where paper and code differ we follow the code, whose numbers are published:
- the value token keeps the block's residual and feed-forward part, and is sent through the output projection;
- keys are normalised over positions, per channel, before they smooth; the paper's formula is a cosine (`smooth`).
The code's arithmetic (LayerNorm eps, exact GELU) is a switch of the task. Ours alone: where denoising would drop every class of a
picture, the best one stays (the code would answer with class 0).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.dense import DenseResNet, DenseViT, LastAttention

TEMPERATURE = 100.0
DROPPED = -100.0
"""On the scale of cosines, that is -10000 after the temperature."""


class MaskCLIP(nn.Module):
    """Cosines of patch features with texts.

    Args:
        tower: CLIP's image tower.
        attention: the last block's, or each patch's own value.
        residual, ffn: of that block (ViT).
    """

    def __init__(self, tower: DenseViT | DenseResNet, attention: LastAttention, residual: bool, ffn: bool) -> None:
        super().__init__()
        self.tower = tower
        self.attention: LastAttention = attention
        self.residual, self.ffn = residual, ffn

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels [I, 3, H, W] -> unit features float32 [I, D, h, w], keys float32 [I, h w, C]."""
        dense, keys = self.tower(pixels, self.attention, self.residual, self.ffn)
        return F.normalize(dense.float(), dim=1), keys.float()

    def forward(self, pixels: Tensor, texts: Tensor, pd_thresh: float, ks_thresh: float, ks_norm: "KeyNorm") -> Tensor:
        """Normalised pixels [I, 3, H, W], unit texts [K, D] -> scores [I, K, h, w].

        Cosines; after key smoothing, sums of probabilities. Thresholds of 0 switch a refinement off.
        """
        return self.scores(*self.features(pixels), texts, pd_thresh, ks_thresh, ks_norm)

    def scores(
        self, dense: Tensor, keys: Tensor, texts: Tensor, pd_thresh: float, ks_thresh: float, ks_norm: "KeyNorm"
    ) -> Tensor:
        """The same of features and keys."""
        scores = torch.einsum("idhw,kd->ikhw", dense, texts.float())
        if pd_thresh > 0:
            scores = denoise(scores, pd_thresh)
        if ks_thresh > 0:
            scores = smooth(scores, keys, ks_thresh, ks_norm)
        return scores


KeyNorm = Literal["positions", "channels"]


def denoise(cosines: Tensor, threshold: float) -> Tensor:
    """Prompt denoising: a class that is nowhere in the picture more probable than the threshold is dropped.

    Args:
        cosines: [I, K, h, w]; probabilities are softmax(100 cosine) over the classes. Dropped classes get -100 everywhere.
    """
    best = (TEMPERATURE * cosines).softmax(1).flatten(2).amax(2)  # [I, K]
    kept = best >= threshold
    kept |= ~kept.any(1, keepdim=True) & (best == best.amax(1, keepdim=True))
    return cosines.masked_fill(~kept[:, :, None, None], DROPPED)


def smooth(cosines: Tensor, keys: Tensor, threshold: float, norm: KeyNorm) -> Tensor:
    """Key smoothing: patches that are unsure take the sum of all patches' probabilities, weighted by likeness of keys.

    largest probability is below the threshold; all sums use the unsmoothed probabilities.

    Args:
        cosines: [I, K, h, w].
        keys: [I, h w, C]. Weights K K^T are not normalised and may be negative. A patch is unsure when its
        norm: keys at unit length over positions, for each channel (the code), or over channels (the paper's cosine).
    """
    probability = (TEMPERATURE * cosines).softmax(1).flatten(2)  # [I, K, N]
    unit = F.normalize(keys, dim=1 if norm == "positions" else 2)
    weighted = (probability @ unit) @ unit.transpose(1, 2)  # [I, K, N], without the N x N weights
    unsure = probability.amax(1, keepdim=True) < threshold
    return torch.where(unsure, weighted, probability).view_as(cosines)
