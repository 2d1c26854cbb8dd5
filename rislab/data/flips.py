"""Horizontal flips that keep sentences true.

Neither CRIS nor LAVT nor DMMI augments; `none` is what they do, and the default. Flipping a picture makes "left" mean right:
`swap` exchanges the words, `refuse` leaves queries whose sentence names a side, and their pictures, as they are.
"""

import re
import zlib
from enum import Enum

_PAIRS = {"left": "right", "leftmost": "rightmost", "lefthand": "righthand", "leftward": "rightward", "lefty": "righty"}
SWAPPED = _PAIRS | {right: left for left, right in _PAIRS.items()}
"""Every word that a mirror exchanges, by itself or as the first part of a hyphenated one ("left-hand")."""

CLOCKWISE = frozenset({"clockwise", "counterclockwise", "anticlockwise"})
"""A mirror turns these round, too, but no exchange of single words is safe: "counter clockwise", "anti-clockwise"."""

_WORD = re.compile(r"[A-Za-z]+")
_READ = re.compile(
    r"\b(text|letter|letters|word|words|number|numbers|sign|logo|clock|o'clock|\d+:\d\d)\b", re.IGNORECASE
)


class Flip(Enum):
    """What training may do with a picture and its sentences."""

    none = "none"
    swap = "swap"
    refuse = "refuse"


def names_a_side(text: str) -> bool:
    """Whether a mirror would change what the sentence means."""
    return any(word.lower() in SWAPPED or word.lower() in CLOCKWISE for word in _WORD.findall(text))


def can_be_swapped(text: str) -> bool:
    """Whether exchanging left and right is all that a mirror asks for: writing and clocks cannot be mirrored."""
    words = {word.lower() for word in _WORD.findall(text)}
    return not words & CLOCKWISE and _READ.search(text) is None


def mirrored(text: str) -> str:
    """The sentence with left and right exchanged, capitals where they had theirs; everything else is as it was."""
    return _WORD.sub(lambda found: _exchanged(found[0]), text)


def _exchanged(model: str) -> str:
    word = SWAPPED.get(model.lower())
    if word is None:
        return model
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def is_flipped(flip: Flip, texts: list[str], seed: int, epoch: int, image_id: int, probability: float = 0.5) -> bool:
    """Whether a picture is mirrored in an epoch: a function of its arguments alone, so that a resumed run agrees.

    Args:
        texts: all sentences about the picture.
    """
    if flip is Flip.none:
        return False
    allowed = can_be_swapped if flip is Flip.swap else lambda text: not names_a_side(text) and can_be_swapped(text)
    draw = zlib.crc32(f"{seed}/{epoch}/{image_id}".encode()) / 2**32
    return draw < probability and all(allowed(text) for text in texts)
