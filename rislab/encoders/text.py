"""The interface of text encoders: sentences -> tokens -> a feature for every token, and one for the sentence."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Span = tuple[int, int]
"""Characters start to stop of a text, stop excluded."""


class TextTokenizer(ABC):
    """Token ids of sentences, each encoded once: sentences come back every epoch.

    Attributes:
        pad_id: Id behind the end of a text.
    """

    pad_id: int = 0

    @abstractmethod
    def ids(self, text: str) -> NDArray[np.int32]:
        """Token ids [n] of a text, start and end tokens included."""

    @abstractmethod
    def spans(self, text: str) -> NDArray[np.int32]:
        """Characters [n, 2] of the text that each of `ids` stands for, start and stop; (0, 0) for start and end tokens.

        Raises:
            DataError: The text is too long to say.
        """

    @abstractmethod
    def cut(self, rows: NDArray[np.int32], length: int) -> NDArray[np.int32]:
        """Those of `ids`, or of `spans`, that are kept of a text with more than `length` tokens."""

    def tokens(self, texts: Sequence[str], length: int) -> "TextTokens":
        """Texts as tokens [N, length] on the CPU.

        Args:
            texts: N sentences.
            length: Tokens that a text is cut or padded to.
        """
        ids = np.full((len(texts), length), self.pad_id, np.int64)
        padding = np.ones((len(texts), length), np.bool_)
        for row, hidden, text in zip(ids, padding, texts, strict=True):
            found = self.within(self.ids(text), length)
            row[: len(found)] = found
            hidden[: len(found)] = False
        return TextTokens(torch.from_numpy(ids), torch.from_numpy(padding), tuple(texts), self)

    def within(self, rows: NDArray[np.int32], length: int) -> NDArray[np.int32]:
        """`ids` or `spans`, cut where there are more than `length`."""
        return rows if len(rows) <= length else self.cut(rows, length)


@dataclass(frozen=True, eq=False)
class TextTokens:
    """N texts as tokens, padded to L.

    Attributes:
        ids: int64 [N, L].
        padding: bool [N, L], True where there is no token.
        texts: The N texts.
        tokenizer: Knows which characters a token stands for.
    """

    ids: Tensor
    padding: Tensor
    texts: tuple[str, ...]
    tokenizer: TextTokenizer

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device | str) -> "TextTokens":
        """The same tokens on another device."""
        return replace(self, ids=self.ids.to(device), padding=self.padding.to(device))

    @cached_property
    def offsets(self) -> Tensor:
        """int64 [N, L, 2] on the CPU: start and stop of each token's characters in its text; (0, 0) for start, end, padding.

        Raises:
            DataError: A text is too long to say.
        """
        found = np.zeros((*self.ids.shape, 2), np.int64)
        for row, text in zip(found, self.texts, strict=True):
            spans = self.tokenizer.within(self.tokenizer.spans(text), len(row))
            row[: len(spans)] = spans
        return torch.from_numpy(found)

    def covering(self, spans: Sequence[Sequence[Span]]) -> Tensor:
        """bool [N, L]: the tokens that stand for at least one character of the spans.

        Args:
            spans: For each text, spans of its characters; see `word_spans`.
        """
        found = torch.zeros_like(self.padding)
        for row, offsets, wanted in zip(found, self.offsets, spans, strict=True):
            for start, stop in wanted:
                row |= ((offsets[:, 0] < stop) & (offsets[:, 1] > start)).to(row.device)
        return found

    def replaced(self, where: Tensor, by: int) -> "TextTokens":
        """The same tokens with other ids.

        Args:
            where: bool [N, L], the tokens to replace.
            by: Their new id. What counts as padding stays.
        """
        return replace(self, ids=self.ids.masked_fill(where, by))


def word_spans(text: str) -> list[Span]:
    """The characters of each word of a text; words are separated by white space."""
    return [match.span() for match in re.finditer(r"\S+", text)]


class TextEncoder(nn.Module, ABC):
    """A network that reads sentences.

    Args:
        tokenizer: Makes its tokens; None where only token ids are given to it.
        max_tokens: Tokens that a sentence is cut and padded to, start and end included.

    Attributes:
        width: Channels C of the words.
        sentence_width: Channels D of the sentence.
    """

    def __init__(self, tokenizer: TextTokenizer | None, max_tokens: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @property
    @abstractmethod
    def width(self) -> int: ...

    @property
    @abstractmethod
    def sentence_width(self) -> int: ...

    @abstractmethod
    def forward(self, ids: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features of words and sentences in one pass.

        Args:
            ids: int64 [N, L].
            padding: bool [N, L], True where there is no token; None: as the encoder's own padding id says.

        Returns:
            Words [N, L, C], and sentences [N, D].
        """

    def tokens(self, texts: Sequence[str]) -> TextTokens:
        """Texts as tokens [N, max_tokens], on the encoder's device."""
        assert self.tokenizer is not None, "this text encoder was built without a tokenizer"
        return self.tokenizer.tokens(texts, self.max_tokens).to(next(self.parameters()).device)

    def words(self, tokens: TextTokens) -> Tensor:
        """A feature for every token, [N, L, C]."""
        words: Tensor = self(tokens.ids, tokens.padding)[0]
        return words

    def sentence(self, tokens: TextTokens) -> Tensor:
        """A feature for every sentence, [N, D]."""
        sentence: Tensor = self(tokens.ids, tokens.padding)[1]
        return sentence
