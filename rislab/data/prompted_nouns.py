"""Nouns of a caption, each put into a prompt: the texts of GroupViT's multi-label contrast.

Source: Xu et al., CVPR 2022, section 3.2; official code, datasets/builder.py. What it calls nouns are NLTK's tags NN, NNS, NNP
and those of verbs, and not NNPS. Captions with fewer words than are wanted give the whole caption in the place of the others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from rislab.data.nouns import tagger, words
from rislab.data.transforms import Key, Sample, Transform
from rislab.errors import ConfigError

TaggerName = Literal["nltk", "pattern"]
WordType = Literal["noun", "noun_phrase"]
CANDIDATES = ("NN", "NNS", "NNP", "VBG", "VB", "VBD", "VBN", "VBP", "VBZ")
"""Tags of the official code."""
PHRASE = re.compile(r"(?:[JV])*N+")
"""A noun phrase, in letters of tags: adjectives and participles, then nouns. Ours: the official grammar was not read."""
DRAW = 17
"""Sets these draws apart from those of the picture."""


@lru_cache(maxsize=1 << 16)
def candidates(text: str, name: TaggerName = "pattern", word_type: WordType = "noun") -> tuple[str, ...]:
    """What may be put into a prompt, in the order of the caption; repeated where the caption repeats it.

    Args:
        text: a caption.
        name: of the tagger. `nltk` reads the words with their case, as the official code; `pattern` in lower case.
        word_type: single words, or noun phrases.

    Raises:
        ConfigError: See `rislab.data.nouns.tagger`.
    """
    found = _split(text) if name == "nltk" else words(text)
    if not found:
        return ()
    tags = tagger(name)(found)
    if word_type == "noun":
        return tuple(word for word, tag in zip(found, tags, strict=True) if tag in CANDIDATES)
    letters = "".join(_letter(tag) for tag in tags)
    return tuple(" ".join(found[match.start() : match.end()]) for match in PHRASE.finditer(letters))


def _letter(tag: str) -> str:
    """N: noun; J: adjective; V: participle; a dot for all others."""
    return "N" if tag.startswith("NN") else "J" if tag.startswith("JJ") else "V" if tag in ("VBN", "VBG") else "."


def _split(text: str) -> list[str]:
    try:
        import nltk

        return [str(word) for word in nltk.word_tokenize(text)]
    except (ImportError, LookupError):
        raise ConfigError(
            "tagger nltk: the data of NLTK's tokenizer is not installed (python -m nltk.downloader punkt_tab); "
            "pattern needs none"
        ) from None


def prompted(
    text: str,
    count: int,
    templates: Sequence[str],
    rng: np.random.Generator,
    name: TaggerName = "pattern",
    word_type: WordType = "noun",
) -> tuple[str, ...]:
    """`count` texts: candidates drawn without replacement, each in a template drawn for it; then the caption.

    Args:
        text: a caption.
        count: K.
        templates: with ``{}`` for the word.
        rng: source of every draw.
        name: see `candidates`.
        word_type: see `candidates`.
    """
    there = candidates(text, name, word_type)
    drawn = rng.choice(len(there), min(count, len(there)), replace=False) if there else ()
    found = [templates[int(rng.integers(len(templates)))].format(there[int(at)]) for at in drawn]
    return (*found, *[text] * (count - len(found)))


@dataclass(frozen=True)
class PromptedNouns(Transform):
    """Puts a picture into the frame, and K prompts behind its caption.

    Attributes:
        size: height and width of the network's frame.
        count: K.
        templates: see `prompted`.
        tagger: see `candidates`.
        word_type: see `candidates`.
        picture: what training does with the picture; None: it is stretched to the frame.
    """

    size: tuple[int, int]
    count: int
    templates: tuple[str, ...]
    tagger: TaggerName
    word_type: WordType
    picture: Transform | None = None

    def __call__(self, sample: Sample, key: Key) -> Sample:
        caption = sample.texts[0]
        if self.picture is None:
            height, width = self.size
            shown = Image.fromarray(sample.picture).resize((width, height), Image.Resampling.BILINEAR)
            sample = replace(sample, picture=np.asarray(shown))
        else:
            sample = self.picture(sample, key)
        rng = np.random.default_rng([*key, DRAW])
        texts = prompted(caption, self.count, self.templates, rng, self.tagger, self.word_type)
        return replace(sample, texts=(caption, *texts))
