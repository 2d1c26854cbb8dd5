"""CLIP's text tower as a `TextEncoder` (Radford et al., ICML 2021, section 2.4)."""

from typing import Any

import open_clip
import torch
from torch import Tensor

from rislab.encoders.clip.tokens import Tokenizer
from rislab.encoders.text import TextEncoder


def encode(tower: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids through a CLIP's text transformer.

    Positions and causal mask are cut to L. There is no padding mask: the end token precedes the padding, and attention is
    causal.

    Args:
        tower: Has `token_embedding`, `positional_embedding`, `transformer`, `attn_mask`, `ln_final`, `text_projection`.
        ids: int64 [N, L], zero-padded; the end token has the largest id.

    Returns:
        Words [N, L, C] behind the last norm, not projected; sentences [N, D], projected.
    """
    length = ids.shape[1]
    x = tower.token_embedding(ids) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    words = tower.ln_final(x)
    state = words[torch.arange(len(ids), device=ids.device), ids.argmax(-1)] @ tower.text_projection
    return words, state


class CLIPTextEncoder(TextEncoder):
    """The text tower of a CLIP, whose parameters it shares.

    Args:
        clip: Of open_clip, with CLIP's own text tower.
        tokenizer: See `TextEncoder`.
        max_tokens: At most the length of the position table; None for that.
    """

    attn_mask: Tensor

    def __init__(
        self, clip: "open_clip.CLIP", tokenizer: Tokenizer | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__(tokenizer, max_tokens or len(clip.positional_embedding))
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("attn_mask", clip.attn_mask, persistent=False)

    @property
    def width(self) -> int:
        return int(self.ln_final.normalized_shape[0])

    @property
    def sentence_width(self) -> int:
        return int(self.text_projection.shape[1])

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `encode`; `padding` has no effect."""
        return encode(self, ids)
