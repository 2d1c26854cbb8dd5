"""CLIP read densely. Radford et al., ICML 2021, arXiv 2103.00020; the baseline of MaskCLIP, TCL and RISCLIP.

Patch features of the last layer, projected into the space of the sentences as if each were the class token, and their
cosines with the texts. CLIP was never trained to have local features: this is what the others are measured against.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.dense import DenseResNet, DenseViT


class DenseCLIP(nn.Module):
    """tower: CLIP's image tower; its last attention is as CLIP computes it."""

    def __init__(self, tower: DenseViT | DenseResNet) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [I, 3, H, W] -> unit features float32 [I, D, h, w]."""
        return F.normalize(self.tower(pixels, "full")[0].float(), dim=1)
