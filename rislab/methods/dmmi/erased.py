"""The tokens of a sentence without its chosen phrase."""

from collections.abc import Sequence
from typing import Literal, cast

import torch

from rislab.data.nouns import words
from rislab.encoders.bert.tokens import WordPiece
from rislab.encoders.text import Span, TextTokens

Alignment = Literal["exact", "official"]
Fill = Literal["pad", "mask"]


def erased(tokens: TextTokens, spans: Sequence[Span | None], alignment: Alignment, fill: Fill) -> TextTokens:
    """Tokens of which those of one phrase a sentence are replaced; they still count as words.

    Args:
        tokens: Of N sentences.
        spans: First and last character (exclusive) of the phrase of each, or None.
        alignment: `exact`: the tokens of these characters. `official`: token p + 1 for word p, which is another one after
            punctuation, apostrophes and words of several pieces.
        fill: The new token, [PAD] or [MASK].
    """
    if alignment == "exact":
        where = tokens.covering([[] if span is None else [span] for span in spans])
    else:
        where = torch.zeros_like(tokens.padding)
        for row, text, span in zip(where, tokens.texts, spans, strict=True):
            if span is not None:
                first = 1 + len(words(text[: span[0]]))
                row[first : first + len(words(text[slice(*span)]))] = True
    tokenizer = cast(WordPiece, tokens.tokenizer)
    return tokens.replaced(where, tokenizer.pad_id if fill == "pad" else tokenizer.mask_id)
