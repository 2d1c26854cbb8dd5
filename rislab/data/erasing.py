"""A phrase of each sentence that training may erase, as DMMI does before it recovers the sentence from the picture.

Source: Hu et al., ICCV 2023, section 3.3; official data/dataset.py: consecutive words tagged NN or NNS are one phrase, and one
phrase is chosen uniformly. There it is chosen once for a run and without a seed; here by (seed, epoch, picture, sentence).
"""

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np

from rislab.data.nouns import WORD, tagger
from rislab.data.transforms import Key, Sample, Transform

Erased = Literal["noun_phrase", "random_word"]
TaggerName = Literal["nltk", "pattern"]
Span = tuple[int, int]
DRAW = 19
"""Sets these draws apart from others with the same key."""


def word_spans(text: str) -> list[Span]:
    """Characters of each word, as `rislab.data.nouns.words` counts them: punctuation is none."""
    # Lower case may be longer than the letter itself (dotted I); such letters stay, so that characters keep their places.
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return [match.span() for match in WORD.finditer(lower)]


@lru_cache(maxsize=1 << 16)
def phrases(text: str, name: TaggerName, limit: int) -> tuple[Span, ...]:
    """Characters of each noun phrase: one or more consecutive words that are tagged NN or NNS.

    Args:
        text: a sentence.
        name: of the tagger.
        limit: words from the beginning that count; what is cut off cannot be erased.

    Raises:
        ConfigError: See `rislab.data.nouns.tagger`.
    """
    spans = word_spans(text)
    if not spans:
        return ()
    tags = tagger(name)([text[start:stop].lower() for start, stop in spans])[:limit]
    nouns = [at for at, tag in enumerate(tags) if tag in ("NN", "NNS")]
    firsts = nouns[:1] + [b for a, b in pairwise(nouns) if b != a + 1]
    lasts = [a for a, b in pairwise(nouns) if b != a + 1] + nouns[-1:]
    return tuple((spans[first][0], spans[last][1]) for first, last in zip(firsts, lasts, strict=True))


@dataclass(frozen=True)
class PhraseToErase(Transform):
    """Chooses the characters of a phrase in each sentence; picture, masks and sentences stay as they are.

    Attributes:
        what: a noun phrase, or any word.
        every_epoch: choose anew in each epoch, or once for all.
        tagger: which says what a noun is.
        limit: words from the beginning that count.
    """

    what: Erased
    every_epoch: bool
    tagger: TaggerName
    limit: int
    in_frame: ClassVar[bool] = True

    def __call__(self, sample: Sample, key: Key) -> Sample:
        return replace(sample, noun_spans=tuple(self._chosen(text, key) for text in sample.texts))

    def _chosen(self, text: str, key: Key) -> Span | None:
        seed, epoch, image_id = key
        there = phrases(text, self.tagger, self.limit) if self.what == "noun_phrase" else word_spans(text)[: self.limit]
        if not there:
            return None
        drawn = [seed, self.every_epoch * (epoch + 1), image_id, zlib.crc32(text.encode()), DRAW]
        return there[int(np.random.default_rng(drawn).integers(len(there)))]
