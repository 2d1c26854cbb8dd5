"""ResNets of torchvision by their four stages. He et al., CVPR 2016, arXiv 1512.03385.

Parameter names are those of torchvision: its ImageNet weights load as they are, without the classifier.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

EXPANSION = 4
"""Channels of a stage, as a multiple of those of its 3x3 convolutions."""


class ResNet(nn.Module):
    """Stem and four stages of bottleneck blocks, at strides 4, 8, 16, 32. Defaults are those of ResNet-101.

    Args:
        blocks: Of the stages.
        planes: Channels of the 3x3 convolutions of the stages.
        stem: Channels of the stem.
    """

    def __init__(
        self, blocks: Sequence[int] = (3, 4, 23, 3), planes: Sequence[int] = (64, 128, 256, 512), stem: int = 64
    ) -> None:
        super().__init__()
        self.channels = tuple(EXPANSION * p for p in planes)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = stem
        for number, (count, p) in enumerate(zip(blocks, planes, strict=True), 1):
            self.add_module(f"layer{number}", _stage(before, p, count, stride=1 if number == 1 else 2))
            before = EXPANSION * p
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels [B, 3, H, W] -> the map of each stage, [B, h, w, C]."""
        x, maps = pixels, []
        for number in range(len(self.channels)):
            x = self.stage(number, x)
            maps.append(x)
        return maps

    def stage(self, number: int, x: Tensor) -> Tensor:
        """The map of one stage, for methods that do something between them.

        Args:
            number: Of the stage, from 0; the stem belongs to the first one.
            x: [B, h, w, C], the map of the stage before; for the first one, normalised pixels [B, 3, H, W].

        Returns:
            [B, h', w', C'], a view of a map with channels second.
        """
        x = x.permute(0, 3, 1, 2) if number else self.maxpool(self.relu(self.bn1(self.conv1(x))))
        layer = cast(nn.Sequential, self.get_submodule(f"layer{number + 1}"))
        return cast(Tensor, layer(x)).permute(0, 2, 3, 1)


def without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under our names."""
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def _stage(before: int, planes: int, count: int, stride: int) -> nn.Sequential:
    """Bottleneck blocks; the first one strides in its 3x3 convolution, and projects its shortcut where shapes differ."""
    after = EXPANSION * planes
    shortcut = None
    if stride != 1 or before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    blocks = [Bottleneck(before, planes, stride, shortcut)]
    return nn.Sequential(*blocks, *(Bottleneck(after, planes) for _ in range(count - 1)))
