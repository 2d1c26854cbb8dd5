"""LAVT: Language-Aware Vision Transformer for Referring Image Segmentation. Yang et al., CVPR 2022, arXiv 2112.02244.

Official code: github.com/yz93/LAVT-RIS (GPL-3.0; read, not copied). Parity: tests/parity, every case of `lavt`.
Tables it can run: ablations/lavt.yaml (components, gate, normalisation, way and stages of fusion).

We follow the code, whose checkpoints must load; the paper's method section could not be read. What a figure would not say:
- the decoder gets LayerNorm(F_i), the output of the fusion itself, and not the gated sum that enters the next stage;
- attention logits are divided by the square root of all channels, however many heads there are;
- every resize aligns corners.
Ours alone: any height and width; what does not depend on the sentence runs once an image; the linear layer behind the attention
is applied to 20 words instead of all pixels, which is the same, since a sum over words commutes with it.
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rislab.encoders.bert.model import BERT
from rislab.encoders.swin.model import Swin
from rislab.nn.conv_decoder import CoarseToFine
from rislab.nn.pixels_and_words import Gate, GateActivation, InstanceNorm, attention_over_words

Pathway = Literal["sum", "concat", "replace", "none"]


class LAVT(nn.Module):
    """Swin with a fusion of the text after each stage, and a plain decoder (paper, figure 2).

    Args:
        text: Encodes the sentence; the same words enter at every stage.
        trunk: Encodes the picture.
        language_pathway: How F_i enters the next stage: x + gate F ("LP"), linear([x, gate F]), gate F alone, or not at all,
            which leaves a late fusion between trunk and decoder.
        text_pooling: The words, or their mean (without "PWAM").
        gate: Last function of the gate ("LG"); `none` for a factor of 1.
        gate_layers: Of the gate, 2 or 1.
        inorm_query: InstanceNorm of the queries.
        inorm_out: InstanceNorm of what the attention gives; with a pooled sentence there is none, since that is the same at all
            pixels and would become 0.
        fusion_stages: Stages from 1 with a fusion. Of the others, the decoder gets LayerNorm(x).
        decoder_input: What the decoder gets of a stage: F_i, or what enters the next one.
        heads: Of the attention in each stage.
        head_scale: Logits are divided by the square root of all channels, or of those of a head.
        fusion_drop: Dropout rate in the fusion.
        decoder_width: Channels of the decoder; None: four times those of the first stage.
    """

    def __init__(
        self,
        text: BERT,
        trunk: Swin,
        language_pathway: Pathway = "sum",
        text_pooling: Literal["words", "mean"] = "words",
        gate: GateActivation = "tanh",
        gate_layers: Literal[1, 2] = 2,
        inorm_query: bool = True,
        inorm_out: bool = True,
        fusion_stages: Sequence[int] = (1, 2, 3, 4),
        decoder_input: Literal["residual", "gated_sum"] = "residual",
        heads: Sequence[int] = (1, 1, 1, 1),
        head_scale: Literal["full", "head"] = "full",
        fusion_drop: float = 0.0,
        decoder_width: int | None = None,
    ) -> None:
        super().__init__()
        self.text = text
        self.trunk = trunk
        self.decoder_input = decoder_input
        self.text_pooling = text_pooling
        is_joined = language_pathway != "none" or decoder_input == "gated_sum"
        self.fusions = nn.ModuleDict(
            {
                str(i): Fusion(
                    PWAM(C, text.width, heads[i], head_scale, inorm_query, inorm_out, fusion_drop)
                    if text_pooling == "words"
                    else PooledFusion(C, text.width, fusion_drop),
                    Gate(C, gate, gate_layers) if is_joined and gate != "none" else None,
                    "sum" if language_pathway == "none" else language_pathway,
                    C,
                )
                for i, C in enumerate(trunk.channels)
                if i + 1 in fusion_stages
            }
        )
        self.norms = nn.ModuleList(nn.LayerNorm(C) for C in trunk.channels)
        width = decoder_width or 4 * trunk.channels[0]
        *finer, coarsest = trunk.channels
        self.decoder = CoarseToFine(
            finer[::-1], [width] * len(finer), "conv-norm-relu", extra=coarsest, out=2, doubles=False, aligned=True
        ).to(memory_format=torch.channels_last)
        stages = len(trunk.layers)
        self.entrance = stages if language_pathway == "none" else min(fusion_stages, default=stages + 1) - 1
        if decoder_input == "residual" and str(stages - 1) in self.fusions:
            # Nothing comes behind the last stage: official files hold its gate, and nothing reads it.
            last = cast(Fusion, self.fusions[str(stages - 1)])
            for unread in (last.gate, last.join):
                if unread is not None:
                    unread.requires_grad_(False)

    def forward(self, pixels: Tensor, ids: Tensor, padding: Tensor, image_index: Tensor) -> Tensor:
        """Two-class logits, background and foreground, at stride 4.

        Args:
            pixels: Normalised, [I, 3, H, W].
            ids: int64 [N, L].
            padding: bool [N, L].
            image_index: int64 [N], the picture of a sentence.

        Returns:
            [N, 2, H/4, W/4].
        """
        return self.answer(self.encode_images(pixels), self.text(ids, padding)[0], ~padding, image_index)

    def encode_images(self, pixels: Tensor) -> list[Tensor]:
        """Maps [I, h, w, C] of the stages that see nothing of the text: up to the first one with a fusion."""
        x, maps = pixels, []
        for number in range(min(self.entrance + 1, len(self.trunk.layers))):
            x = self.trunk.stage(number, x)
            maps.append(x)
        return maps

    def answer(self, maps: Sequence[Tensor], words: Tensor, is_word: Tensor, image_index: Tensor) -> Tensor:
        """See `forward`. maps: of `encode_images`; words: [N, L, D]; is_word: bool [N, L]."""
        present = is_word.to(words.dtype)
        if self.text_pooling == "mean":
            words = (words * present[..., None]).sum(1, keepdim=True) / present.sum(1)[:, None, None]  # [N, 1, D]
        features: list[Tensor] = []
        x = words  # replaced by the first stage
        for i, norm in enumerate(self.norms):
            # Rows are pictures as long as no text has entered, and then queries.
            x, rows = (maps[i], image_index) if i < len(maps) else (self.trunk.stage(i, x), None)  # [I or N, h, w, C]
            if str(i) in self.fusions:
                fusion = cast(Fusion, self.fusions[str(i)])
                residual = fusion(x, words, present, rows)  # [N, h, w, C]
                if len(maps) <= i + 1 < len(self.norms) or self.decoder_input == "gated_sum":
                    x = fusion.joined(x if rows is None else x[rows], residual)
                feature = norm(residual if self.decoder_input == "residual" else x)
            else:
                feature = norm(x)
                feature = feature if rows is None else feature[rows]
            features.append(feature.permute(0, 3, 1, 2))
        return self.decoder(features[-2::-1], features[-1])


class Fusion(nn.Module):
    """The text at one stage: F, its gate, and how both enter what follows (section 3.2 and 3.3).

    Args:
        pwam: Gives F.
        gate: None for a factor of 1.
        way: How gate F joins the map.
        channels: C.
    """

    def __init__(self, pwam: "PWAM | PooledFusion", gate: Gate | None, way: str, channels: int) -> None:
        super().__init__()
        self.pwam = pwam
        self.gate = gate
        self.join = nn.Linear(2 * channels, channels) if way == "concat" else None
        self.replaces = way == "replace"

    def forward(self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
        """F [N, h, w, C] of maps x [I, h, w, C], or [N, h, w, C] where `rows` is None."""
        return self.pwam(x.flatten(1, 2), words, present, rows).unflatten(1, x.shape[1:3])

    def joined(self, x: Tensor, residual: Tensor) -> Tensor:
        """What the next stage gets of x and F, both [N, h, w, C]."""
        gated = residual if self.gate is None else self.gate(residual) * residual
        if self.join is not None:
            return self.join(torch.cat([x, gated], dim=-1))
        return gated if self.replaces else x + gated


class PWAM(nn.Module):
    """Pixel-word attention: each pixel gathers the words that fit it, and is multiplied with them (section 3.2).

    Args:
        channels: C.
        text_width: D.
        heads: Of the attention.
        head_scale: Logits are divided by the square root of all channels, or of those of a head.
        inorm_query: InstanceNorm of the queries.
        inorm_out: InstanceNorm of what the attention gives.
        drop: Dropout rate.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        heads: int,
        head_scale: str,
        inorm_query: bool,
        inorm_out: bool,
        drop: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels if head_scale == "full" else channels // heads) ** -0.5
        self.query = nn.Linear(channels, channels)
        self.norm_query = InstanceNorm() if inorm_query else nn.Identity()
        self.key = nn.Linear(text_width, channels)
        self.value = nn.Linear(text_width, channels)
        self.out = nn.Linear(channels, channels)
        self.norm_out = InstanceNorm() if inorm_out else nn.Identity()
        self.visual = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
        """Pixels and words -> F.

        Args:
            x: [I, P, C], or [N, P, C] where `rows` is None.
            words: [N, L, D].
            present: float [N, L], 0 for padding.
            rows: int64 [N], the row of x that a query belongs to.

        Returns:
            [N, P, C].
        """
        q, v = self.norm_query(self.query(x)), self.dropout(F.gelu(self.visual(x)))
        if rows is not None:
            q, v = q[rows], v[rows]
        return self.dropout(F.gelu(self.project(v * self.norm_out(self._attended(q, words, present)))))

    def _attended(self, q: Tensor, words: Tensor, present: Tensor) -> Tensor:
        """out(sum over words of attention times value), [N, P, C]."""
        k = self.scale * self.key(words) * present[..., None]
        v = self.value(words) * present[..., None]
        if self.heads == 1:
            return attention_over_words(q @ k.transpose(1, 2), present) @ self.out(v)
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))  # [N, heads, P or L, d]
        logits = (q @ k.transpose(2, 3)).flatten(0, 1)
        A = attention_over_words(logits, present.repeat_interleave(self.heads, 0)).unflatten(0, (-1, self.heads))
        weight = self.out.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # [heads, d, C]
        v = (v @ weight).flatten(1, 2)  # [N, heads * L, C]
        return A.transpose(1, 2).flatten(2) @ v + self.out.bias


class PooledFusion(nn.Module):
    """The same with one vector for the sentence, as attention over one word is it (without "PWAM", our reading).

    Args:
        channels: C.
        text_width: D.
        drop: Dropout rate.
    """

    def __init__(self, channels: int, text_width: int, drop: float) -> None:
        super().__init__()
        self.value = nn.Linear(text_width, channels)
        self.out = nn.Linear(channels, channels)
        self.visual = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(drop)

    def forward(self, x: Tensor, words: Tensor, present: Tensor, rows: Tensor | None) -> Tensor:
        """See `PWAM.forward`; words: [N, 1, D]."""
        v = self.dropout(F.gelu(self.visual(x)))
        v = v if rows is None else v[rows]
        return self.dropout(F.gelu(self.project(v * self.out(self.value(words)))))
