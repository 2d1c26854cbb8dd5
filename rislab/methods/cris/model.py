"""CRIS: CLIP-Driven Referring Image Segmentation. Wang et al., CVPR 2022, arXiv 2111.15174.

Official code: github.com/DerrickWang005/CRIS.pytorch (MIT). Parity: tests/parity, every case of `cris`.
Tables it can run: ablations/cris.yaml (components and decoder depth).

Where paper and code differ we follow the code, whose checkpoints must load:
- the projector is a dynamic 3x3 kernel with a bias, not a dot product, and two 3x3 blocks stand between the upsamplings;
- a decoder layer has a LayerNorm after each attention and inside the MLP, and sine positions on queries and keys;
- the neck multiplies with the sentence at the coarsest level only, and concatenates at the others;
- the attention pool has a residual 1x1 convolution.
Ours alone: what does not depend on the sentence runs once an image, not once a sentence (same numbers).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.clip.text import CLIPTextEncoder
from rislab.encoders.clip.trunk import ResNetPyramid


def conv(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size is kept."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def upsample(x: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class CRIS(nn.Module):
    """Trunk, neck, decoder, projector (paper, figure 2).

    and must equal the text width.

    Args:
        trunk, text: CLIP's two towers.
        fpn_out: widths of the neck at strides 8, 16, 32; the middle one is the decoder's width
        text_to_pixel: classify pixels by a kernel made from the sentence; off: by a fixed 1x1 convolution ("Con." in the paper's
            table; which kernel the authors used is not stated).
        decoder_layers: depth n of the vision-language decoder; 0 removes it, its final norm, and so the words ("Dec.").
        kernel_size: of the dynamic kernel; 3 as released, 1 is the paper's dot product.
    """

    def __init__(
        self,
        trunk: ResNetPyramid,
        text: CLIPTextEncoder,
        fpn_out: tuple[int, int, int],
        text_to_pixel: bool,
        decoder_layers: int,
        num_head: int,
        dim_ffn: int,
        dropout: float,
        kernel_size: int,
    ) -> None:
        super().__init__()
        width = fpn_out[1]
        embed_dim = trunk.channels[2]
        self.trunk = trunk
        self.text = text
        self.neck = Neck(trunk.channels, fpn_out, embed_dim)
        self.decoder = Decoder(decoder_layers, width, num_head, dim_ffn, dropout) if decoder_layers else None
        head = DynamicHead(embed_dim, width // 2, kernel_size) if text_to_pixel else StaticHead(width // 2)
        self.projector = Projector(width, head)

    def forward(self, pixels: Tensor, tokens: Tensor, image_index: Tensor) -> Tensor:
        """Normalised pixels [I, 3, H, W], token ids [N, L], image_index [N] -> mask logits [N, H/4, W/4]."""
        levels = self.trunk(pixels)  # [I, 512, H/8, W/8] [I, 1024, H/16, W/16] [I, 1024, H/32, W/32]
        words, state = self.text(tokens)  # [N, L, 512] [N, 1024]
        fused = self.neck(levels, state, image_index)  # [N, 512, H/16, W/16]
        if self.decoder is not None:
            fused = self.decoder(fused, words, tokens == 0)  # [N, 512, H/16, W/16]
        return self.projector(fused, state)  # [N, H/4, W/4]


class Neck(nn.Module):
    """Cross-modal neck: the pyramid, with the sentence multiplied in at the coarsest level, at stride 16 (section 3.2)."""

    def __init__(self, channels: Sequence[int], fpn_out: tuple[int, int, int], embed_dim: int) -> None:
        super().__init__()
        c3, c4, c5 = channels
        o3, o4, o5 = fpn_out
        self.sentence = nn.Sequential(nn.Linear(embed_dim, o5, bias=False), nn.BatchNorm1d(o5), nn.ReLU(inplace=True))
        self.level5 = conv(c5, o5, 1)
        self.level4 = conv(c4, o4, 3)
        self.level3 = conv(c3, o3, 3)
        self.norm5 = nn.BatchNorm2d(o5)
        self.fuse4 = conv(o4 + o5, o4, 1)
        self.fuse3 = conv(o3 + o4, o4, 1)
        self.out5 = conv(o5, o4, 3)
        self.out4 = conv(o4, o4, 3)
        self.out3 = conv(o4, o4, 3)
        self.aggregate = conv(3 * o4, o4, 1)
        self.coordinates = conv(o4 + 2, o4, 3)
        self.smooth = conv(o4, o4, 3)

    def forward(self, levels: tuple[Tensor, Tensor, Tensor], state: Tensor, image_index: Tensor) -> Tensor:
        c3, c4, c5 = levels
        # Once an image; from here on, rows are queries.
        v5 = self.level5(c5)[image_index]
        v4 = self.level4(c4)[image_index]
        v3 = F.avg_pool2d(self.level3(c3), 2)[image_index]

        f5 = F.relu(self.norm5(v5 * self.sentence(state)[:, :, None, None]))
        f4 = self.fuse4(torch.cat([v4, upsample(f5)], dim=1))
        f3 = self.fuse3(torch.cat([v3, f4], dim=1))
        fused = self.aggregate(torch.cat([self.out3(f3), self.out4(f4), upsample(self.out5(f5))], dim=1))
        return self.smooth(self.coordinates(torch.cat([fused, _grid(fused)], dim=1)))


def _grid(like: Tensor) -> Tensor:
    """Coordinates [N, 2, h, w] in [-1, 1], corner to corner; x first."""
    rows, _, height, width = like.shape
    x = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype).expand(height, width)
    y = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)[:, None].expand(height, width)
    return torch.stack([x, y]).expand(rows, 2, height, width)


class Decoder(nn.Module):
    """Vision-language decoder: pixels attend to one another, then to the words (section 3.3)."""

    def __init__(self, layers: int, width: int, num_head: int, dim_ffn: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, num_head, dim_ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, fused: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """fused [N, C, h, w], words [N, L, C], padding bool [N, L] (True: no word) -> [N, C, h, w]."""
        rows, width, height, breadth = fused.shape
        where = sine_2d(width, height, breadth).to(fused)
        order = sine_1d(width, words.shape[1]).to(fused)
        v = fused.flatten(2).transpose(1, 2)  # [N, hw, C]
        for layer in self.layers:
            v = layer(v, words, where, order, padding)
        return self.norm(v).transpose(1, 2).reshape(rows, width, height, breadth)


class DecoderLayer(nn.Module):
    """Pre-norm attention whose output is normed again before it is added; positions go to queries and keys only."""

    def __init__(self, width: int, num_head: int, dim_ffn: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, num_head, dropout=dropout, batch_first=True)
        self.self_attn_norm = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, num_head, dropout=dropout, batch_first=True)
        self.cross_attn_norm = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, dim_ffn),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.LayerNorm(dim_ffn),
            nn.Linear(dim_ffn, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, v: Tensor, words: Tensor, where: Tensor, order: Tensor, padding: Tensor) -> Tensor:
        a = self.norm1(v)
        q = a + where
        attended = self.self_attn(q, q, a, need_weights=False)[0]
        v = v + self.dropout(self.self_attn_norm(attended))
        a = self.norm2(v)
        attended = self.cross_attn(a + where, words + order, words, key_padding_mask=padding, need_weights=False)[0]
        v = v + self.dropout(self.cross_attn_norm(attended))
        return v + self.dropout(self.ffn(self.norm3(v)))


def sine_1d(width: int, length: int) -> Tensor:
    """Sine on even, cosine on odd channels, temperature 10000, from position 0: float32 [length, width]."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    angle = torch.arange(length)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def sine_2d(width: int, height: int, breadth: int) -> Tensor:
    """The first half of the channels encodes the column, the second the row: float32 [height * breadth, width]."""
    columns = sine_1d(width // 2, breadth)[None].expand(height, breadth, width // 2)
    rows = sine_1d(width // 2, height)[:, None].expand(height, breadth, width // 2)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)


class Projector(nn.Module):
    """Up four times to stride 4, then one logit a pixel (section 3.4)."""

    def __init__(self, width: int, head: "DynamicHead | StaticHead") -> None:
        super().__init__()
        self.block1 = conv(width, width, 3)
        self.block2 = conv(width, width // 2, 3)
        self.out = nn.Conv2d(width // 2, width // 2, 1)
        self.head = head

    def features(self, fused: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C/2, 4h, 4w]."""
        return self.out(self.block2(upsample(self.block1(upsample(fused)))))

    def forward(self, fused: Tensor, state: Tensor) -> Tensor:
        return self.head(self.features(fused), state)


class DynamicHead(nn.Module):
    """A convolution whose kernel and bias are a linear function of the sentence state."""

    depends_on_text = True

    def __init__(self, embed_dim: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.kernel = nn.Linear(embed_dim, channels * kernel_size**2 + 1)

    def forward(self, v: Tensor, state: Tensor) -> Tensor:
        """v [N, C, h, w], state [N, embed_dim] -> [N, h, w].

        A convolution with another kernel for each row is a product for each tap, then a shifted sum: many times faster on
        a CPU than one grouped convolution with N groups.
        """
        rows, channels, height, width = v.shape
        k = self.kernel_size
        made = self.kernel(state)
        taps = made[:, :-1].view(rows, channels, k, k).flip(2, 3).flatten(2)  # folding spreads where convolving gathers
        products = taps.transpose(1, 2) @ v.reshape(rows, channels, height * width)  # [N, k*k, hw]
        logits = products if k == 1 else F.fold(products, (height, width), k, padding=k // 2)
        return logits.view(rows, height, width) + made[:, -1, None, None]


class StaticHead(nn.Module):
    """The same classifier for every sentence: the baseline without text-to-pixel contrast."""

    depends_on_text = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, 1, 1)

    def forward(self, v: Tensor, state: Tensor) -> Tensor:
        return self.classifier(v)[:, 0]
