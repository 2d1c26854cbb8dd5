"""ResNets with bottleneck blocks as dense encoders: strides and dilations of each stage are arguments.

Source: He et al., CVPR 2016. CLIMS and IRN put a block's stride on its 3x3 convolution (torchvision's form, whose names the
parameters have), DeepLabV2's Caffe weights on the first 1x1. LSeg's ResNet101 is torchvision's own module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # also a SyncBatchNorm that a Trainer puts in the place of ours

from rislab.encoders.weight_sources import absent_for_none
from rislab.errors import ConfigError, brief, nearest, one_line
from rislab.nn.weight_files import fits, read_weights
from rislab.paths import user_path

SIZES: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "resnet50": (64, (3, 4, 6, 3)),
    "resnet101": (64, (3, 4, 23, 3)),
    "rislab-tiny-resnet": (16, (1, 1, 1, 1)),
}
"""Width of the stem and blocks of each stage, by name."""


@dataclass(frozen=True)
class ResNetSpec:
    """A ResNet by name and weights: ``{name: resnet50, pretrained: imagenet}``.

    Attributes:
        name: One of `SIZES`.
        pretrained: `imagenet` for torchvision's IMAGENET1K_V1; a file of weights under torchvision's names, whose `fc.` is left
            out; None for random weights.
    """

    hashed_with: ClassVar[dict[str, dict[str, str]]] = {}

    name: str
    pretrained: str | None = None

    def __post_init__(self) -> None:
        absent_for_none(self, "pretrained")


def normed(x: Tensor, conv: nn.Conv2d, norm: _BatchNorm) -> Tensor:
    """norm(conv(x)). Where the norm takes its running statistics it is one factor and one shift, folded into the convolution."""
    if norm.training:
        return norm(conv(x))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * factor[:, None, None, None]
    return conv._conv_forward(x, weight, norm.bias - norm.running_mean * factor)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with batch norm, around a shortcut.

    Args:
        channels: Of the input.
        width: Of the 3x3 convolution; the output has four times as many channels.
        stride: Of the block.
        dilation: Of the 3x3 convolution.
        stride_first: Put the stride on the first convolution, not on the 3x3.
        slope: Of the ReLUs below 0.
        shortcut: A 1x1 convolution with batch norm on the shortcut.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        dilation: int = 1,
        stride_first: bool = False,
        slope: float = 0.0,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.slope = slope
        self.downsample: nn.Sequential | None = None
        if shortcut:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def _act(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope, inplace=True) if self.slope else F.relu(x, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] -> [B, 4 width, h / stride, w / stride]."""
        y = self._act(normed(x, self.conv1, self.bn1))
        y = self._act(normed(y, self.conv2, self.bn2))
        y = normed(y, self.conv3, self.bn3)
        if self.downsample is not None:
            conv, norm = self.downsample
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, _BatchNorm)
            x = normed(x, conv, norm)
        return self._act(y.add_(x))


class ResNet(nn.Module):
    """Stem and four stages, without a classifier.

    Args:
        width: Channels of the stem; a stage has 4, 8, 16 and 32 times as many.
        layers: Blocks of each stage.
        strides: Of the stages' first blocks.
        dilations: Of the stages' 3x3 convolutions.
        dilate_first: Dilate a stage's first block as well.
        stride_first: See `Bottleneck`.
        ceil: Let the stem's pooling take the last, incomplete window as well (Caffe).

    Attributes:
        channels: Of the output.
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        dilate_first: bool = False,
        stride_first: bool = False,
        ceil: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.ceil = ceil
        channels, stages = width, []
        for i in range(4):
            wide = width * 2**i
            blocks = [
                Bottleneck(
                    channels if block == 0 else 4 * wide,
                    wide,
                    strides[i] if block == 0 else 1,
                    dilations[i] if block or dilate_first else 1,
                    stride_first,
                    shortcut=block == 0,
                )
                for block in range(layers[i])
            ]
            stages.append(nn.Sequential(*blocks))
            channels = 4 * wide
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> features [B, 32 width, h, w]."""
        x = F.relu(normed(pixels, self.conv1, self.bn1), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=self.ceil)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def load(spec: ResNetSpec, **form: Any) -> ResNet:
    """The named ResNet in float32.

    Args:
        spec: Name and weights.
        form: Strides, dilations and the like, as of `ResNet`.

    Raises:
        ConfigError: Unknown name, weights that cannot be fetched, no such file.
        DataError: A file without weights of this ResNet.
    """
    if spec.name not in SIZES:
        raise ConfigError(f"trunk.name {brief(spec.name)} is none of {', '.join(SIZES)}{nearest(spec.name, SIZES)}")
    width, layers = SIZES[spec.name]
    model = ResNet(width, layers, **form)
    if spec.pretrained is None:
        return model
    if spec.pretrained == "imagenet":
        where, state = Path(f"torchvision's {spec.name}"), _of_torchvision(spec.name)
    else:
        where = user_path(spec.pretrained)
        if not where.exists():
            raise ConfigError(f"trunk.pretrained {brief(spec.pretrained, 200)} is neither a file nor `imagenet`")
        state = read_weights(where)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    fits(where, state, model.state_dict())
    model.load_state_dict(state)
    return model


def _of_torchvision(name: str) -> dict[str, Tensor]:
    try:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        found: dict[str, Tensor] = weights.get_state_dict(progress=False)
    except ValueError as error:
        raise ConfigError(f"trunk.pretrained 'imagenet': torchvision has no weights of {name}, leave it out") from error
    except Exception as error:  # of the network and the cache folder
        raise ConfigError(
            f"trunk {name!r}: ImageNet weights not available ({one_line(error)[:200]}). Without a network give a file of "
            f"weights, trunk.pretrained: /path/to/{name}.pth"
        ) from error
    return found
