"""CLIP's byte-pair encoding: token ids of sentences, and the characters that they stand for."""

import difflib
import heapq
import html
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import open_clip
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from rislab.encoders.text import TextTokenizer
from rislab.errors import DataError

KEPT = 4096
"""Most ids that are kept of a text, start and end included. No text tower reads as many."""
LONG_WORD = 64
"""Characters above which open_clip's merging, whose time grows with the square of a word's length, is not used."""
LONG_TEXT = 10_000
"""Characters above which the offsets of tokens are not computed."""


class Tokenizer(TextTokenizer):
    """CLIP's tokenizer.

    Args:
        name: Of the open_clip model whose tokenizer it is.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tokenizer = open_clip.get_tokenizer(name)
        self._known: dict[str, NDArray[np.int32]] = {}

    @property
    def kind(self) -> str:
        """Name of the vocabulary; models that share one have the same."""
        return f"{type(self._tokenizer).__name__}-{self._tokenizer.vocab_size}"

    def ids(self, text: str) -> NDArray[np.int32]:
        """The token ids of a sentence, start and end included; of a text with more than `KEPT`, the first and the end."""
        if text not in self._known:
            start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
            self._known[text] = np.array([start, *_encoded(self._tokenizer, text), end], np.int32)
        return self._known[text]

    def spans(self, text: str) -> NDArray[np.int32]:
        """See `TextTokenizer.spans`. A character of several bytes may belong to several tokens.

        Raises:
            DataError: A text of more than `LONG_TEXT` characters.
        """
        if len(text) > LONG_TEXT:
            raise DataError(
                f"a text of {len(text)} characters, {text[:40]!r}...: tokens are located in at most {LONG_TEXT}"
            )
        clean = self._tokenizer.clean_fn(text)
        origin = _origins(text, clean)
        found = [(0, 0)]
        for match in self._tokenizer.pat.finditer(clean):
            # Character of the original text of each byte of the word.
            at = [origin[match.start() + i] for i, char in enumerate(match.group()) for _ in char.encode("utf-8")]
            for part in _parts(self._tokenizer, match.group()):
                count = len(part.removesuffix("</w>"))
                found.append((min(start for start, _ in at[:count]), max(stop for _, stop in at[:count])))
                at = at[count:]
        return np.array([*found[: KEPT - 1], (0, 0)], np.int32)

    def cut(self, rows: NDArray[np.int32], length: int) -> NDArray[np.int32]:
        """The first ones, and the end token in the last place."""
        return np.concatenate([rows[: length - 1], rows[-1:]])

    def take(self, kind: str, ids: Mapping[str, NDArray[np.int32]]) -> None:
        """Remember ids that a tokenizer of the same `kind` has made; others are ignored."""
        if kind == self.kind:
            self._known |= ids

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """Token ids int64 [N, context_length], zeros behind the end; a text that is cut ends with the end token."""
        return self.tokens(texts, context_length).ids


_UNIT = re.compile(r"&(?:amp;)*(?:#[0-9]+|#x[0-9a-f]+|[a-z0-9]+);|.", re.IGNORECASE | re.DOTALL)
"""An HTML entity, maybe escaped again, or a character."""


def _origins(text: str, clean: str) -> list[tuple[int, int]]:
    """The characters of a text, start and stop, that each character of the cleaned text comes from.

    Cleaning mends broken encodings, resolves HTML entities, merges white space and lowers case.
    """
    units = ((match[0], match.span()) for match in _UNIT.finditer(text))
    lowered = [(c, at) for unit, at in units for c in html.unescape(html.unescape(unit)).lower() if not c.isspace()]
    kept = [j for j, char in enumerate(clean) if not char.isspace()]
    origin = [(0, 0)] * len(clean)
    before, after = "".join(c for c, _ in lowered), "".join(clean[j] for j in kept)
    if before == after:
        for (_, at), j in zip(lowered, kept, strict=True):
            origin[j] = at
        return origin
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for n, j in enumerate(kept[c:d]):
            if kind == "equal":
                origin[j] = lowered[a + n][1]
            elif a < b:
                origin[j] = (lowered[a][1][0], lowered[b - 1][1][1])
            else:  # inserted: the empty span before the next character
                before_it = lowered[a][1][0] if a < len(lowered) else len(text)
                origin[j] = (before_it, before_it)
    return origin


def _encoded(tokenizer: SimpleTokenizer, text: str) -> list[int]:
    """The first ids of `tokenizer.encode(text)`, as many as are kept.

    Captions from the web may have a megabyte, or one word of 20,000 letters.
    """
    found: list[int] = []
    for part in _beginnings(text):
        found = _words(tokenizer, part)
        if len(found) == KEPT - 2:
            break
    return found


def _beginnings(text: str) -> Iterator[str]:
    """Beginnings of a text, each longer than the one before, that end with a line; the last one is the whole text.

    Cleaning works line by line and looks back, never ahead: the beginning of a cleaned text is the cleaned beginning. Blank
    lines change nothing.
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
        found += [tokenizer.encoder[part] for part in _parts(tokenizer, match.group())]
        if len(found) >= KEPT - 2:
            break
    return found[: KEPT - 2]


def _parts(tokenizer: SimpleTokenizer, word: str) -> list[str]:
    """The byte pairs of a word, in the tokenizer's letters, one a byte; the last one ends with `</w>`."""
    letters = "".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8"))
    return tokenizer.bpe(letters).split(" ") if len(letters) <= LONG_WORD else merged(letters, tokenizer.bpe_ranks)


def merged(word: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """The parts of a word after all merges: what open_clip's `bpe` finds, in time n log n instead of n squared.

    The pair of the lowest rank is merged everywhere, from left to right, then the lowest of the pairs that exist then.

    Args:
        word: At least one character, bytes as the tokenizer's letters.
        ranks: Of the pairs that can be merged.

    Returns:
        The parts; the last one ends with `</w>`.
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
