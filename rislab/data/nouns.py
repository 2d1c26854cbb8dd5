"""Which words of a sentence are nouns: DMMI erases one of them, GroupViT asks for them.

The papers' codes use TextBlob, or NLTK itself, with NLTK's perceptron tagger, whose data must be downloaded. Where it is
installed, it is used (`nltk`: what the papers did). Otherwise TextBlob's pattern tagger, whose word lists come with the
package (`pattern`), with a few words of the domain put right; the two agree on about nine decisions in ten. Which one it was
belongs to a result: `backend` names it with its version.

Tags are made once for an annotation file and kept in the cache folder.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from rislab.data.annotations import Reference
from rislab.errors import ConfigError
from rislab.files import cache_dir, read_json, write_json
from rislab.messages import preparing

SECONDS = 3e-5
"""To tag a sentence with pattern's tagger, measured on one core."""

Tagger = Callable[[list[str]], list[str]]
"""Words -> as many Penn Treebank tags."""

OVERRIDES = {
    **dict.fromkeys(
        ("left", "right", "top", "bottom", "front", "back", "middle", "center", "centre", "far", "near"), "JJ"
    ),
    **dict.fromkeys(("orange", "blond", "blonde"), "JJ"),
    **dict.fromkeys(
        ("bear", "elephant", "giraffe", "zebra", "sheep", "couch", "pizza", "umbrella", "bowl", "glass"), "NN"
    ),
    **dict.fromkeys(
        ("circle", "square", "triangle", "cross", "shape", "guy", "lady", "kid", "batter", "catcher"), "NN"
    ),
}
"""What the pattern tagger gets wrong in telegraphic sentences: "left" is a participle to it, "bear" a verb."""

VERSION = 1
"""Raise it when the same words would get other tags by our doing."""

NOT_INSTALLED = "nouns of sentences need a tagger: pip install 'rislab[nouns]'"

WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


@cache
def backend() -> str:
    """`nltk-<version>` or `pattern-<textblob's version>.<ours>`; part of the identity of whatever depends on nouns."""
    if _nltk() is not None:
        return f"nltk-{version('nltk')}"
    try:
        return f"pattern-{version('textblob')}.{VERSION}"
    except PackageNotFoundError:
        raise ConfigError(NOT_INSTALLED) from None


@cache
def _nltk() -> Tagger | None:
    """NLTK's perceptron tagger, or None when its data is not installed."""
    try:
        import nltk

        nltk.pos_tag(["cat"])
    except (ImportError, LookupError):
        return None
    return lambda words: [tag for _, tag in nltk.pos_tag(words)]


@cache
def _pattern() -> Tagger:
    try:
        from textblob.en import tag
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None

    def tagger(words: list[str]) -> list[str]:
        found = tag(" ".join(words), tokenize=False)
        tags = [str(kind) for _, kind in found] if len(found) == len(words) else ["NN"] * len(words)
        return [_singular_or_plural(word, OVERRIDES.get(word, kind)) for word, kind in zip(words, tags, strict=True)]

    return tagger


def _singular_or_plural(word: str, kind: str) -> str:
    """Plurals of words that we put right are put right, too."""
    singular = word[:-1] if word.endswith("s") else word
    return "NNS" if kind != "NN" and word not in OVERRIDES and OVERRIDES.get(singular) == "NN" else kind


def tagger(kind: str) -> Tagger:
    """A tagger by its name, for what says itself which one it uses.

    Args:
        kind: `nltk` or `pattern`.

    Raises:
        ConfigError: NLTK's data is not installed.
    """
    if kind == "pattern":
        return _pattern()
    found = _nltk()
    if found is None:
        raise ConfigError(
            "tagger nltk: the data of NLTK's perceptron tagger is not installed "
            "(python -m nltk.downloader averaged_perceptron_tagger_eng); pattern needs none"
        )
    return found


def words(text: str) -> list[str]:
    """The words of a sentence, lower case, punctuation left out; `nouns` counts in these."""
    return WORD.findall(text.lower())


def nouns(text: str) -> tuple[int, ...]:
    """Positions in `words(text)` of the words tagged NN or NNS."""
    found = words(text)
    if not found:
        return ()
    tagger = _nltk() or _pattern()
    return tuple(at for at, kind in enumerate(tagger(found)) if kind in ("NN", "NNS"))


def nouns_of(references: Sequence[Reference], text_field: str) -> dict[int, tuple[int, ...]]:
    """`nouns` of every sentence, by sent_id; from the cache when the same sentences were tagged before."""
    texts = {e.sent_id: str(getattr(e, text_field)) for reference in references for e in reference.expressions}
    key = hashlib.sha256(backend().encode())
    for sent_id, text in texts.items():
        key.update(f"\n{sent_id} {text}".encode())
    path = cache_dir() / "nouns" / f"{key.hexdigest()[:20]}.json"
    held = read_json(path)
    if not isinstance(held, dict) or held.get("backend") != backend():
        preparing(f"tagging the nouns of {len(texts)} sentences", SECONDS * len(texts), str(path.parent))
        held = {"backend": backend(), "nouns": {str(sent_id): nouns(text) for sent_id, text in texts.items()}}
        with suppress(OSError):  # a cache that cannot be written is none
            write_json(path, held)
    return {int(sent_id): tuple(found) for sent_id, found in held["nouns"].items()}
