"""LSeg: Language-driven Semantic Segmentation. Li et al., ICLR 2022, arXiv 2201.03546.

Official code: github.com/isl-org/lang-seg (MIT). Parity: tests/parity, every case of `lseg`. Tables it can run:
ablations/lseg.yaml (spatial regularisation, text encoders).
A DPT (Ranftl et al., ICCV 2021) gives every pixel a vector in the space of CLIP's sentences; names classify pixels.

The paper's tables could not be read, so we follow the code throughout:
- a regularisation block is one 3x3 kernel with one bias for all names, applied `depth` times with the same weights;
- the logit scale is the constant 1 / 0.07; it is not trained;
- the zero-shot form, a pair of names for each picture, has no regularisation block.
Ours alone, with the same numbers: 1x1 convolutions come before enlarging and cosines are taken without enlarging the vectors
(`rislab.nn.enlarging`); a readout's linear layer runs once for the class token; depth 0 means no block.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import ResNet

from rislab.methods.lseg.blocks import through
from rislab.nn.enlarging import enlarged, enlarged_cosines

Readout = Literal["ignore", "add", "project"]
Block = Literal["none", "depthwise", "bottleneck"]
Activation = Literal["relu", "lrelu", "tanh"]
LOGIT_SCALE = 1 / 0.07
STRIDES = (4, 8, 16, 32)


class LSeg(nn.Module):
    """Trunk, decoder, head, cosines, spatial regularisation (paper, figure 2).

    Args:
        trunk: Gives maps at strides 4, 8, 16 and 32.
        features: Width of the decoder.
        embed_dim: Of the sentences.
        regulariser: None without.
    """

    def __init__(
        self, trunk: "ViTTrunk | ResNetTrunk", features: int, embed_dim: int, regulariser: "Regulariser | None" = None
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.decoder = Decoder(trunk.channels, features)
        self.head = Pointwise(features, embed_dim)
        self.regulariser = regulariser

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W], sides multiples of 32 -> vectors [B, C, H/4, W/4], not normalised."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        levels = self.trunk(pixels)  # [B, c1, H/4, W/4] [B, c2, H/8, W/8] [B, c3, H/16, W/16] [B, c4, H/32, W/32]
        return self.head(self.decoder(levels))

    def logits(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """Vectors of `embed` and unit texts [N, C] or [B, N, C] -> [B, N, H/2, W/2], without the block, in float32."""
        with torch.autocast(vectors.device.type, enabled=False):
            return LOGIT_SCALE * enlarged_cosines(vectors.float(), texts.float())

    def forward(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] and unit texts [N, C] -> logits of N names [B, N, H/2, W/2].

        The official model ends with `enlarged`; loss and evaluation do it, so that no map of full size is held for a name.
        """
        logits = self.logits(self.embed(pixels), texts)
        return logits if self.regulariser is None else self.regulariser(logits)


class ViTTrunk(nn.Module):
    """A vision transformer whose blocks are read at four depths and reassembled into a pyramid (DPT).

    Args:
        vit: Of timm. Its final norm and its classifier are not used.
        taps: Four blocks, counted from 0, whose outputs are read.
        channels: Of the four maps.
        readout: What becomes of the class token.
    """

    def __init__(self, vit: VisionTransformer, taps: Sequence[int], channels: Sequence[int], readout: Readout) -> None:
        super().__init__()
        self.vit = vit
        self.taps, self.channels = tuple(taps), tuple(channels)
        patch = vit.patch_embed.patch_size[0]
        self.reassemble = nn.ModuleList(
            Reassemble(vit.embed_dim, width, readout, patch / stride)
            for width, stride in zip(channels, STRIDES, strict=True)
        )

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position table [1, 1 + h w, D], its square part resized bilinearly."""
        table = self.vit.pos_embed
        assert table is not None
        side = round((table.shape[1] - 1) ** 0.5)
        if grid == (side, side):
            return table
        square = table[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        resized = F.interpolate(square, grid, mode="bilinear", align_corners=False)
        return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        patches = self.vit.patch_embed.proj(pixels)  # [B, D, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        assert self.vit.cls_token is not None
        first = self.vit.cls_token.expand(len(pixels), -1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + self.positions(grid)
        levels: list[Tensor] = []
        for number, block in enumerate(self.vit.blocks[: max(self.taps) + 1]):
            tokens = through(block, tokens)
            if number in self.taps:  # before the final norm
                levels.append(self.reassemble[len(levels)](tokens, grid))
        return levels


class Ignore(nn.Module):
    """Patches [B, T, D] of tokens [B, 1 + T, D], without the class token."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:]


class Add(Ignore):
    """The class token is added to every patch."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:] + tokens[:, :1]


class Project(Ignore):
    """GELU(W [patch; class token]): the product with the class token is the same for all patches and taken once."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        of_patch, of_class = self.linear.weight.chunk(2, dim=1)
        return F.gelu(F.linear(tokens[:, 1:], of_patch) + F.linear(tokens[:, :1], of_class, self.linear.bias))


READOUTS: dict[Readout, Callable[[int], nn.Module]] = {"ignore": Ignore, "add": Add, "project": Project}


class Reassemble(nn.Module):
    """Tokens [B, 1 + h w, D] into a map [B, c, h f, w f].

    Args:
        width: D.
        channels: c.
        readout: See `ViTTrunk`.
        factor: f, one of 8, 4, 2, 1 and 0.5.
    """

    def __init__(self, width: int, channels: int, readout: Readout, factor: float) -> None:
        super().__init__()
        self.readout = READOUTS[readout](width)
        self.reduce = Pointwise(width, channels)
        self.resample: nn.Module = nn.Identity()
        if factor > 1:
            self.resample = nn.ConvTranspose2d(channels, channels, int(factor), stride=int(factor))
        elif factor < 1:
            self.resample = nn.Conv2d(channels, channels, 3, stride=round(1 / factor), padding=1)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = self.readout(tokens).transpose(1, 2).unflatten(2, grid)
        return self.resample(self.reduce(patches))


class ResNetTrunk(nn.Module):
    """A ResNet's four stages; its classifier is dropped, as in the official code.

    Args:
        resnet: Of torchvision.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.channels = tuple(resnet.fc.in_features // 2**k for k in (3, 2, 1, 0))
        del resnet.fc
        self.resnet = resnet

    def forward(self, pixels: Tensor) -> list[Tensor]:
        net = self.resnet
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(pixels)))))
        levels = [x]
        for layer in (net.layer2, net.layer3, net.layer4):
            levels.append(layer(levels[-1]))
        return levels


class Decoder(nn.Module):
    """From coarse to fine: each level is brought to one width and fused into what comes from below.

    Args:
        channels: Of the four levels, finest first.
        features: The common width F.
    """

    def __init__(self, channels: Sequence[int], features: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, features, 3, padding=1, bias=False) for count in channels)
        self.fusion = nn.ModuleList(Fusion(features) for _ in channels)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Maps at strides 4, 8, 16 and 32 -> [B, F, H/4, W/4]; the official path_1 is this one, enlarged."""
        laterals = [conv(level) for conv, level in zip(self.lateral, levels, strict=True)]
        x = self.fusion[-1](laterals[-1])
        for fusion, lateral in zip(self.fusion[-2::-1], laterals[-2::-1], strict=True):
            x = fusion(enlarged(x), lateral)
        return x


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as one matrix product: nothing is copied with channels last, where torch has no fast kernel for one core.

    Args:
        width: Channels of the input.
        channels: Of the output.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, channels, h, w]."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class Fusion(nn.Module):
    """Adds a level to what comes from below, then refines. The coarsest has one input and does not use `of_level`.

    Enlarging comes after it; the 1x1 convolution commutes with that, and costs a quarter before.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.of_level = ResidualConvUnit(features)
        self.of_sum = ResidualConvUnit(features)
        self.out = Pointwise(features, features)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        if level is not None:
            x = x + self.of_level(level)
        return self.out(self.of_sum(x))


class ResidualConvUnit(nn.Module):
    """x + norm(conv(relu(norm(conv(relu(x)))))), 3x3."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(F.relu(x)))
        return x + self.norm2(self.conv2(F.relu(y)))


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "lrelu": F.leaky_relu,
    "tanh": torch.tanh,
}


class Regulariser(nn.Module):
    """Spatial regularisation block: one 3x3 kernel K and one bias for the maps of all names (paper, section 4.1).

    depthwise: y = K * x. bottleneck: y = K * x + max over names of x. An activation follows, but for the last of `depth`
    applications, which share K. With depth 1 the bottleneck adds one number to all names of a pixel: softmax, loss and argmax
    are those of the depthwise block.

    Args:
        block: Which; not `none`.
        depth: 1 or more.
        activation: Between applications.
    """

    def __init__(self, block: Block, depth: int, activation: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.adds_max = block == "bottleneck"
        self.depth = depth
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, h, w] -> [B, N, h, w]; any number of names, in any order."""
        for left in range(self.depth - 1, -1, -1):
            y = self.conv(x.flatten(0, 1)[:, None])[:, 0].unflatten(0, x.shape[:2])
            if self.adds_max:
                y = y + x.amax(1, keepdim=True)
            x = self.activation(y) if left else y
        return x
