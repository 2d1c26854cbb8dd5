"""CLIMS: Cross Language Image Matching for Weakly Supervised Semantic Segmentation. Xie, Hou, Ye, Shen, CVPR 2022,
arXiv 2203.02668.

Official code: github.com/CVI-SZU/CLIMS, in two versions: `repo`, which the authors prefer, and `paper`, its folder
previous_version, which has the published numbers. Parity: tests/parity, every case of `clims`. Tables: ablations/clims.yaml.
A class activation network P = sigmoid(classifier(ResNet50(x))) is trained by what CLIP says of the picture under each map.

Where paper and code differ we follow the code, whose weights must load:
- `repo` has no head but a 1x1 convolution, which comes from the baseline classifier; `paper` adds a bottleneck with leaky ReLUs
  and a background channel that no loss reads;
- batch norm takes batch statistics while CLIMS is trained, and running statistics in the baseline classifier.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.resnet import Bottleneck, ResNet

HeadName = Literal["linear", "bottleneck"]
FORMS: dict[int, dict[str, tuple[int, int, int, int]]] = {
    16: {"strides": (1, 2, 2, 1)},
    8: {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 2)},
}
"""Strides and dilations of the trunk's stages by its total stride."""


class Head(nn.Module):
    """From features to a logit map for each class.

    Args:
        channels: Of the features.
        classes: K.
        name: `linear`: a 1x1 convolution. `bottleneck`: a residual block before it, and a background channel, the first one, that
            nothing reads.
    """

    def __init__(self, channels: int, classes: int, name: HeadName) -> None:
        super().__init__()
        has_block = name == "bottleneck"
        self.bottleneck = Bottleneck(channels, channels // 4, slope=0.01) if has_block else None
        self.classifier = nn.Conv2d(channels, classes + has_block, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.01)

    def forward(self, features: Tensor, classes: Tensor | None = None) -> Tensor:
        """Features [B, C, h, w] -> logits [B, K, h, w]; of some classes, int64 [k], only theirs are computed: [B, k, h, w]."""
        weight = self.classifier.weight
        if self.bottleneck is not None:
            features, weight = self.bottleneck(features), weight[1:]
        return F.conv2d(features, weight if classes is None else weight[classes])


class CAMNetwork(nn.Module):
    """Trunk and head: the baseline classifier, and CLIMS after it.

    Args:
        trunk: ResNet of total stride 16 or 8; see `FORMS`.
        classes: K.
        head: See `Head`.
    """

    def __init__(self, trunk: ResNet, classes: int, head: HeadName = "linear") -> None:
        super().__init__()
        self.trunk = trunk
        self.head = Head(trunk.channels, classes, head)

    def forward(self, pixels: Tensor, classes: Tensor | None = None) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> logits [B, K, h, w] whose sigmoid is P; `classes` as of `Head.forward`."""
        return self.head(self.trunk(pixels), classes)

    def classify(self, pixels: Tensor) -> Tensor:
        """Normalised pixels -> logits [B, K] of the classes being somewhere: the same head on the mean feature."""
        return self.head(self.trunk(pixels).mean((2, 3), keepdim=True)).flatten(1)
