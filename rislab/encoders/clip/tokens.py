"""Token ids of sentences, each encoded once."""

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

KEPT = 4096
"""Most ids that are kept of a text, start and end included. No text tower reads as many."""
LONG_WORD = 64
"""Characters above which open_clip's merging, whose time grows with the square of a word's length, is not used."""


class Tokenizer:
    """CLIP's byte-pair encoding, with a memory: sentences come back every epoch.

    name: of the open_clip model whose tokenizer it is.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tokenizer = open_clip.get_tokenizer(name)
        self._known: dict[str, NDArray[np.int32]] = {}

    @property
    def kind(self) -> str:
        """What tells tokenizers apart, also between models that share one."""
        return f"{type(self._tokenizer).__name__}-{self._tokenizer.vocab_size}"

    def ids(self, text: str) -> NDArray[np.int32]:
        """The token ids of a sentence, start and end included; of a text with more than `KEPT`, the first and the end."""
        if text not in self._known:
            start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
            self._known[text] = np.array([start, *_encoded(self._tokenizer, text), end], np.int32)
        return self._known[text]

    def take(self, kind: str, ids: Mapping[str, NDArray[np.int32]]) -> None:
        """Remember what a tokenizer of this kind has made; ids of another kind are left alone."""
        if kind == self.kind:
            self._known |= ids

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """int64 [N, context_length], zeros behind the end; what is cut ends with the end token."""
        out = np.zeros((len(texts), context_length), np.int64)
        for row, text in zip(out, texts, strict=True):
            ids = self.ids(text)
            row[: len(ids)] = ids[:context_length]
            if len(ids) > context_length:
                row[-1] = ids[-1]
        return torch.from_numpy(out)


def _encoded(tokenizer: SimpleTokenizer, text: str) -> list[int]:
    """The first ids of `tokenizer.encode(text)`, as many as are kept.

    Captions from the web may be a megabyte, or one word of 20,000 letters.
    """
    found: list[int] = []
    for part in _beginnings(text):
        found = _words(tokenizer, part)
        if len(found) == KEPT - 2:
            break
    return found


def _beginnings(text: str) -> Iterator[str]:
    """Longer and longer beginnings of a text that end with a line, the last one whole.

    Cleaning works line by line and looks back, never ahead: the beginning of a cleaned text is the cleaned beginning. Lines of
    blanks change nothing.
    """
    size = 1 << 16
    if len(text) > size:
        text = re.sub(r"\n(?: *\n)+", "\n", text)
    while size < len(text):
        end = text.find("\n", size) + 1
        if end in (0, len(text)):
            break
        yield text[:end]
        size = 2 * end
    yield text


def _words(tokenizer: SimpleTokenizer, text: str) -> list[int]:
    found: list[int] = []
    for match in tokenizer.pat.finditer(tokenizer.clean_fn(text)):
        word = "".join(tokenizer.byte_encoder[byte] for byte in match.group().encode("utf-8"))
        parts = tokenizer.bpe(word).split(" ") if len(word) <= LONG_WORD else merged(word, tokenizer.bpe_ranks)
        found += [tokenizer.encoder[part] for part in parts]
        if len(found) >= KEPT - 2:
            break
    return found[: KEPT - 2]


def merged(word: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """The parts of a word after all merges: what open_clip's `bpe` finds, in time n log n instead of n squared.

    The pair of the lowest rank is merged everywhere, from left to right, then the lowest of the pairs that are there then.

    Args:
        word: at least one character, bytes as the tokenizer's letters.
        ranks: of the pairs that can be merged.
    """
    parts = [*word[:-1], word[-1] + "</w>"]
    count = len(parts)
    before, after = list(range(-1, count - 1)), [*range(1, count), -1]
    places: dict[int, list[int]] = {}  # rank -> where such a pair begins, or began
    waiting: list[int] = []

    def note(left: int, right: int) -> None:
        rank = ranks.get((parts[left], parts[right]))
        if rank is not None:
            if rank not in places:
                places[rank] = []
                heapq.heappush(waiting, rank)
            places[rank].append(left)

    for left in range(count - 1):
        note(left, left + 1)
    while waiting:
        rank = heapq.heappop(waiting)
        for left in sorted(places.pop(rank)):
            right = after[left]
            if right < 0 or not parts[left] or ranks.get((parts[left], parts[right])) != rank:
                continue  # one of the two has gone into another pair
            parts[left] += parts[right]
            parts[right] = ""
            after[left], after[right] = after[right], -1
            if after[left] >= 0:
                before[after[left]] = left
                note(left, after[left])
            if before[left] >= 0:
                note(before[left], left)
    return [part for part in parts if part]
