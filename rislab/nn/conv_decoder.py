"""A plain convolutional decoder from coarse to fine, as LAVT has it and RISCLIP takes over."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormOrder = Literal["conv-relu-norm", "conv-norm-relu"]


def double_conv(channels_in: int, channels_out: int, order: NormOrder) -> nn.Sequential:
    """Two 3x3 convolutions with batch norm and ReLU, in the given order; without a bias where the norm follows at once."""
    layers: list[nn.Module] = []
    for count in (channels_in, channels_out):
        norm = nn.BatchNorm2d(channels_out)
        if order == "conv-norm-relu":
            layers += [nn.Conv2d(count, channels_out, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)]
        else:
            layers += [nn.Conv2d(count, channels_out, 3, padding=1), nn.ReLU(), norm]
    return nn.Sequential(*layers)


class CoarseToFine(nn.Module):
    """One stage a level, coarsest first: what came so far and the level's features, two convolutions, then twice the size.

    Args:
        channels: of the levels' features, coarsest first, as they are given.
        widths: of the stages.
        out: logits a pixel.
        extra: channels that are put beside the coarsest level.
        doubles: enlarge after every stage (RISCLIP); otherwise a stage only goes to the size of the next level (LAVT).
        aligned: resize with aligned corners (LAVT).
    """

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int],
        order: NormOrder,
        extra: int = 0,
        out: int = 1,
        doubles: bool = True,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        before = [extra, *widths[:-1]]
        stages = zip(channels, before, widths, strict=True)
        self.stages = nn.ModuleList(double_conv(own + earlier, width, order) for own, earlier, width in stages)
        self.out = nn.Conv2d(widths[-1], out, 1)
        self.doubles, self.aligned = doubles, aligned

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if x.shape[-2:] == size:
            return x
        return F.interpolate(x, size, mode="bilinear", align_corners=self.aligned)

    def forward(self, levels: Sequence[Tensor], extra: Tensor | None = None) -> Tensor:
        """levels: [N, C_i, h_i, w_i], coarsest first; extra [N, extra, h, w] -> logits [N, out, h', w']."""
        x = extra
        for stage, level in zip(self.stages, levels, strict=True):
            if x is None:
                x = level
            else:
                # What is finer decides the size: the level grows to what came so far, or that to the level.
                height, width = (x if self.doubles else level).shape[-2:]
                x = torch.cat([self.resized(each, (height, width)) for each in (x, level)], dim=1)
            x = stage(x)
            if self.doubles:
                x = self.resized(x, (2 * x.shape[-2], 2 * x.shape[-1]))
        assert x is not None, "a decoder has levels"
        return self.out(x)
