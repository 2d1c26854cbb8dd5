"""DeepLabV2: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs.
Chen, Papandreou, Kokkinos, Murphy, Yuille, TPAMI 2018, arXiv 1606.00915.

Code that weak supervision is measured with, and whose weights load: github.com/kazuto1011/deeplab-pytorch (CLIMS trains it on its
pseudo masks). It answers the class names that it was trained on, and no others. No parity case: no official outputs were at hand.

A ResNet of stride 8 in Caffe's form, four dilated convolutions whose sum is the logits (ASPP), and the same network on smaller
pictures (MSC), of which the largest logit of each pixel counts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.resnet import ResNet

FORM = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "dilate_first": True, "ceil": True}
"""Of the trunk; see `rislab.encoders.resnet.ResNet`. Where a block has its stride depends on whose weights they are."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 3x3 convolutions of several dilations side by side, added up.

    Args:
        channels: Of the features.
        classes: Of the logits.
        rates: Dilations.
    """

    def __init__(self, channels: int, classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in rates)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            nn.init.normal_(conv.weight, 0, 0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[B, channels, h, w] -> [B, classes, h, w]."""
        return torch.stack([conv(features) for conv in self.convs]).sum(0)


class DeepLabV2(nn.Module):
    """Trunk and ASPP, at one scale and at several.

    Args:
        trunk: A ResNet of form `FORM`.
        classes: Of the logits, background among them where there is one.
        rates: Dilations of ASPP.
        scales: Of the smaller pictures; none: the picture alone.
    """

    def __init__(self, trunk: ResNet, classes: int, rates: Sequence[int], scales: Sequence[float]) -> None:
        super().__init__()
        self.trunk = trunk
        self.aspp = ASPP(trunk.channels, classes, rates)
        self.scales = tuple(scales)

    def pyramid(self, pixels: Tensor) -> list[Tensor]:
        """Logits of normalised pixels [B, 3, H, W], each [B, C, h, w].

        Returns:
            Of the picture; of each smaller one, at its own size; where there are any, the largest of these at each pixel.
        """
        height, width = pixels.shape[-2:]
        found = [self.aspp(self.trunk(pixels))]
        for scale in self.scales:
            size = max(1, int(height * scale)), max(1, int(width * scale))
            smaller = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
            found.append(self.aspp(self.trunk(smaller)))
        if not self.scales:
            return found
        largest = found[0]
        for logits in found[1:]:
            enlarged = F.interpolate(logits, largest.shape[-2:], mode="bilinear", align_corners=False)
            largest = torch.maximum(largest, enlarged)
        return [*found, largest]

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> the largest logits of all scales, [B, C, h, w]."""
        return self.pyramid(pixels)[-1]
