"""DMMI: Beyond One-to-One: Rethinking the Referring Image Segmentation. Hu et al., ICCV 2023, arXiv 2308.13853.

Official code: github.com/toggle1995/RIS-DMMI (a fork of LAVT's; read, not copied). Parity: tests/parity, every case of `dmmi`.
Tables it can run: ablations/dmmi.yaml (components, regions, token windows, directions, erasing).

Where paper and code differ we follow the code, whose checkpoints must load:
- a region's query is learned from its pixels (paper: a sum of dot products), a token window is centred (paper: begins at i);
- with a Swin the decoder gets LayerNorm(residual), with a ResNet the gated sum that enters the next stage;
- padded words are attended to by both decoders and are part of the pooled sentence;
- every resize aligns corners.
Ours alone: any height and width; see mba.py for what is computed in another way; inference leaves out what only losses read.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.bert.model import BERT
from rislab.encoders.swin.model import Swin
from rislab.encoders.torchvision_resnet import ResNet
from rislab.methods.dmmi.layers import DecoderLayer
from rislab.methods.dmmi.mba import MBA, Directions
from rislab.nn.conv_decoder import double_conv
from rislab.nn.pixels_and_words import Gate


class Answer(NamedTuple):
    """What one pass gives.

    Attributes:
        logits: Two-class logits, background and foreground, at stride 4, [N, 2, H/4, W/4].
        text: The words after the last fusion, [N, L, D] (paper: E_4).
        levels: Maps of the decoder at strides 16, 8, 4, [N, D, h, w] each.
    """

    logits: Tensor
    text: Tensor
    levels: list[Tensor]


class DMMI(nn.Module):
    """Trunk and text, joined after each stage; a decoder from text to image; for training, one from image to text (figure 3).

    Args:
        text: Encodes the sentence.
        trunk: Encodes the picture.
        regions: See `MBA`.
        token_windows: See `MBA`.
        learned_mixing: See `MBA`.
        directions: See `MBA`.
        fusion_drop: See `MBA`.
        recovers: Whether there is the decoder from image to text ("CCR").
        contrasts: Whether pixels and sentence are pooled for the contrast.
        heads: Of the transformer layers; divides the text's width.
        hidden: Width of their feed-forward parts.
        dropout: Of the transformer layers.
        masks_padding: Hide padded words from the decoder's cross attention.
    """

    def __init__(
        self,
        text: BERT,
        trunk: Swin | ResNet,
        regions: Sequence[int] = (1, 3, 5),
        token_windows: Sequence[int] = (1, 2, 3),
        learned_mixing: bool = True,
        directions: Directions = "both",
        fusion_drop: float = 0.0,
        recovers: bool = True,
        contrasts: bool = True,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
        masks_padding: bool = False,
    ) -> None:
        super().__init__()
        self.text = text
        self.trunk = trunk
        D = text.width
        self.fusions = nn.ModuleList(
            Fusion(C, D, MBA(C, D, regions, token_windows, learned_mixing, directions, fusion_drop))
            for C in trunk.channels
        )
        self.norms = nn.ModuleList(nn.LayerNorm(C) for C in trunk.channels) if isinstance(trunk, Swin) else None
        last = cast(Fusion, self.fusions[-1])
        if self.norms is not None and last.gate is not None:
            # The decoder gets the residual itself and no stage follows: official files hold this gate, and nothing reads it.
            last.gate.requires_grad_(False)
        self.decoder = TextToImage(trunk.channels, D, heads, hidden, dropout)
        self.recovery = ImageToText(D, heads, hidden, dropout) if recovers else None
        self.pooling = Pooling(D) if contrasts else None
        self.masks_padding = masks_padding
        # torch's stack of layers copies the one that it is given: official files hold both, and nothing reads the originals.
        twins = [DecoderLayer(D, heads, hidden, dropout) for _ in range(2 + recovers)]
        self.unread = nn.ModuleList(twins).requires_grad_(False)

    def forward(self, pixels: Tensor, ids: Tensor, padding: Tensor, image_index: Tensor) -> Answer:
        """One pass.

        Args:
            pixels: Normalised, [I, 3, H, W].
            ids: int64 [N, L].
            padding: bool [N, L].
            image_index: int64 [N], the picture of a sentence.
        """
        return self.answer(self.encode_images(pixels), self.text(ids, padding)[0], ~padding, image_index)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """The map of the first stage, [I, H/4, W/4, C], which sees nothing of the text."""
        return self.trunk.stage(0, pixels)

    def answer(self, first: Tensor, words: Tensor, is_word: Tensor, image_index: Tensor) -> Answer:
        """See `forward`. first: of `encode_images`; words: [N, L, D]; is_word: bool [N, L]."""
        present = is_word.to(words.dtype)
        x, rows = first, cast(Tensor | None, image_index)  # rows are pictures in the first stage, and then queries
        features: list[Tensor] = []
        for i, fusion in enumerate(self.fusions):
            x = self.trunk.stage(i, x) if i else x
            residual, more = cast(Fusion, fusion).mba(x, words, present, rows)
            x = x if rows is None else x[rows]
            rows = None
            feeds_on = self.norms is None or i + 1 < len(self.fusions)
            seen = x
            if residual is not None:
                seen = residual
                x = cast(Fusion, fusion).joined(x, residual) if feeds_on else x
            words = words if more is None else cast(Fusion, fusion).updated(words, more)
            feature = x if self.norms is None else self.norms[i](seen)  # [N, h, w, C]
            features.append(feature.permute(0, 3, 1, 2))
        logits, levels = self.decoder(features, words, ~is_word if self.masks_padding else None)
        return Answer(logits, words, levels)


class Fusion(nn.Module):
    """MBA of one stage, and how its residuals enter what follows.

    Args:
        channels: C.
        width: D.
        mba: Gives the residuals.
    """

    def __init__(self, channels: int, width: int, mba: MBA) -> None:
        super().__init__()
        self.mba = mba
        self.gate = Gate(channels) if mba.pixels is not None else None
        self.text = nn.Linear(width, width) if mba.words is not None else None

    def joined(self, x: Tensor, residual: Tensor) -> Tensor:
        """What the next stage gets of pixels and their residual, [N, h, w, C]."""
        assert self.gate is not None
        return torch.addcmul(x, self.gate(residual), residual)

    def updated(self, words: Tensor, residual: Tensor) -> Tensor:
        """What the next stage gets of words and their residual, [N, L, D]."""
        assert self.text is not None
        return words + F.gelu(self.text(residual))


class TextToImage(nn.Module):
    """From coarse to fine: convolutions of what came so far beside a stage's map, and pixels that look for words.

    Args:
        channels: Of the four stages.
        width: D.
        heads: Of the transformer layers.
        hidden: Width of their feed-forward parts.
        dropout: Theirs.
    """

    def __init__(self, channels: Sequence[int], width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        *finer, coarsest = channels
        before = [coarsest, *[width] * (len(finer) - 1)]
        self.convolutions = nn.ModuleList(
            double_conv(own + earlier, width, "conv-norm-relu")
            for own, earlier in zip(finer[::-1], before, strict=True)
        ).to(memory_format=torch.channels_last)
        self.attentions = nn.ModuleList(DecoderLayer(width, heads, hidden, dropout) for _ in finer[1:])
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, features: Sequence[Tensor], words: Tensor, hidden: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Maps of the stages and words -> logits and the maps of the decoder's levels.

        Args:
            features: [N, C, h, w] of the four stages, finest first.
            words: [N, L, D].
            hidden: bool [N, L], words that no pixel may look at; None for none.
        """
        y, levels = features[-1], []
        for i, convolution in enumerate(self.convolutions):
            finer = features[-2 - i]
            y = F.interpolate(y, finer.shape[-2:], mode="bilinear", align_corners=True)
            y = convolution(torch.cat([y, finer], dim=1))
            levels.append(y)
            if i < len(self.attentions):
                y = as_map(self.attentions[i](as_sequence(y), words, hidden), y)  # [N, D, h, w]
        return self.out(y), levels


class ImageToText(nn.Module):
    """CCR: words of a sentence in which a phrase was erased look for it among the pixels (section 3.3).

    Args:
        width: D.
        heads: Of the transformer layer.
        hidden: Width of its feed-forward part.
        dropout: Its.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.attention = DecoderLayer(width, heads, hidden, dropout)

    def forward(self, guide: Tensor, erased: Tensor) -> Tensor:
        """The recovered words [N, L, D].

        Args:
            guide: The decoder's map at stride 8, [N, D, h, w].
            erased: The words of the erased sentence as BERT gives them, [N, L, D].
        """
        return self.attention(erased, as_sequence(F.relu(self.norm(self.conv(guide)))))


class Pooling(nn.Module):
    """One vector of the pixels and one of the sentence, whose directions the contrast compares.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.middle = nn.Linear(2 * width, width)
        self.fine = nn.Linear(2 * width, width)
        self.text = nn.Linear(width, width)

    def pixels(self, levels: Sequence[Tensor]) -> Tensor:
        """[N, D] of the decoder's maps, coarsest first."""
        coarse, middle, fine = (level.mean((2, 3)) for level in levels)
        return self.fine(torch.cat([self.middle(torch.cat([coarse, middle], dim=1)), fine], dim=1))

    def sentence(self, words: Tensor, present: Tensor | None) -> Tensor:
        """[N, D] of words [N, L, D]; present: float [N, L] where padding is left out, None for a mean over all positions."""
        if present is None:
            return self.text(words.mean(1))
        return self.text((words * present[..., None]).sum(1) / present.sum(1, keepdim=True))


def as_sequence(x: Tensor) -> Tensor:
    """[N, D, h, w] -> [N, h * w, D]."""
    return x.flatten(2).transpose(1, 2)


def as_map(x: Tensor, like: Tensor) -> Tensor:
    """[N, h * w, D] -> [N, D, h, w]."""
    return x.transpose(1, 2).unflatten(2, like.shape[-2:])
