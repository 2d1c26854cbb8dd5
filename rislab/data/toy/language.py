"""What can be said of a scene, and what it denotes.

Every sentence of `sentences` is true of exactly one thing, of `group` of several, of `nothing_there` and `no_such_combination`
of none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rislab.data.toy.scene import COLOURS, PATTERNS, SHAPES, Thing

MARGIN = 0.16
"""Least difference, as a share of the scene's side, for "left of" and "leftmost" to be clear; a cell of stride 16 at 96."""

Things = Sequence[Thing]


@dataclass(frozen=True)
class Appearance:
    """Attributes that a thing must have; None says nothing about one."""

    size: str | None = None
    pattern: str | None = None
    colour: str | None = None
    shape: str | None = None

    def denotes(self, things: Things) -> list[int]:
        # Called some hundred times a scene: spelt out, it is several times as fast as a loop over the fields.
        return [
            i
            for i, thing in enumerate(things)
            if (self.size is None or thing.size == self.size)
            and (self.pattern is None or thing.pattern == self.pattern)
            and (self.colour is None or thing.colour == self.colour)
            and (self.shape is None or thing.shape == self.shape)
        ]

    def words(self) -> str:
        return " ".join(word for word in (self.size, self.pattern, self.colour, self.shape or "shape") if word)

    def plural(self) -> str:
        words = self.words()
        return f"{words}es" if words.endswith("s") else f"{words}s"


@dataclass(frozen=True)
class Extreme:
    """The outermost, towards one side, of those that look so; there must be several, and the margin clear."""

    side: str
    looks: Appearance
    margin: float

    def denotes(self, things: Things) -> list[int]:
        found = self.looks.denotes(things)
        if len(found) < 2:
            return []
        ranked = sorted(found, key=lambda i: _towards(things[i], self.side), reverse=True)
        first, second = (_towards(things[i], self.side) for i in ranked[:2])
        return [ranked[0]] if first - second > self.margin else []


@dataclass(frozen=True)
class Beside:
    """Those that look so and lie on one side of another thing, itself described beyond doubt."""

    looks: Appearance
    side: str
    other: Appearance
    margin: float

    def denotes(self, things: Things) -> list[int]:
        anchors = self.other.denotes(things)
        if len(anchors) != 1:
            return []
        edge = _towards(things[anchors[0]], self.side)
        candidates = [i for i in self.looks.denotes(things) if i != anchors[0]]
        # Whoever lies on that side at all could be meant; whoever lies there hardly makes the sentence unclear.
        found = [i for i in candidates if _towards(things[i], self.side) > edge]
        return found if all(_towards(things[i], self.side) - edge > self.margin for i in found) else []


Meaning = Appearance | Extreme | Beside

SIDES = ("left", "right", "top", "bottom")
RELATIONS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}


def _towards(thing: Thing, side: str) -> float:
    return {"left": -thing.x, "right": thing.x, "top": -thing.y, "bottom": thing.y}[side]


def _looks(rng: np.random.Generator, thing: Thing) -> Appearance:
    """Some true attributes of a thing; shape and colour more often than size and pattern."""
    keep = rng.random(4)
    return Appearance(
        size=thing.size if keep[0] < 0.35 else None,
        pattern=thing.pattern if keep[1] < 0.25 else None,
        colour=thing.colour if keep[2] < 0.9 else None,
        shape=thing.shape if keep[3] < 0.9 else None,
    )


def _unique(rng: np.random.Generator, things: Things, target: int, meaning: str, size: int) -> Meaning | None:
    """A meaning of the wanted kind that denotes the target alone, or None after some tries."""
    margin = MARGIN * size
    for _ in range(12):
        looks = _looks(rng, things[target])
        side = SIDES[int(rng.integers(len(SIDES)))]
        candidate: Meaning
        if meaning == "looks":
            candidate = looks
        elif meaning == "extreme":
            candidate = Extreme(side, looks, margin)
        else:
            others = [i for i in range(len(things)) if i != target]
            candidate = Beside(looks, side, _looks(rng, things[int(rng.choice(others))]), margin)
            # A relation that could be left out teaches nothing.
            if len(looks.denotes(things)) < 2:
                continue
        if candidate.denotes(things) == [target]:
            return candidate
    return None


def _short(rng: np.random.Generator, meaning: Meaning) -> str:
    """As people type in a game: no articles, few words."""
    if isinstance(meaning, Appearance):
        return meaning.words()
    if isinstance(meaning, Extreme):
        words = meaning.looks.words()
        outer = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}[meaning.side]
        place = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
        forms = (f"{meaning.side} {words}", f"{outer} {words}", f"{words} {place[meaning.side]}")
        return str(rng.choice(forms))
    return f"{meaning.looks.words()} {RELATIONS[meaning.side]} {meaning.other.words()}"


def _long(rng: np.random.Generator, meaning: Meaning) -> str:
    """As people write without haste: whole phrases."""
    if isinstance(meaning, Beside):
        verb = str(rng.choice(("that is", "which is", "lying")))
        return f"the {meaning.looks.words()} {verb} {RELATIONS[meaning.side]} the {meaning.other.words()}"
    if isinstance(meaning, Extreme):
        return f"of the {meaning.looks.plural()}, the one furthest to the {meaning.side}"
    return f"a {meaning.words()} in the picture"


KINDS = {
    "refcoco": (("looks", 0.3), ("extreme", 0.4), ("beside", 0.3)),
    "refcoco+": (("looks", 1.0),),
    "refcocog": (("looks", 0.15), ("extreme", 0.2), ("beside", 0.65)),
}


def sentences(rng: np.random.Generator, things: Things, target: int, dataset: str, size: int) -> list[str]:
    """Up to three sentences that single the target out, as the named data set would word them; maybe none."""
    kinds, weights = zip(*KINDS[dataset], strict=True)
    found: list[str] = []
    for _ in range(3):
        meaning = _unique(rng, things, target, str(rng.choice(kinds, p=weights)), size)
        if meaning is not None:
            found.append(_long(rng, meaning) if dataset == "refcocog" else _short(rng, meaning))
    return list(dict.fromkeys(found))


NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def group(rng: np.random.Generator, things: Things, size: int) -> tuple[str, list[int]] | None:
    """A sentence that means several things, and which: all that look so, or two that are named one after the other."""
    for _ in range(12):
        target = int(rng.integers(len(things)))
        if rng.random() < 0.6:
            looks = _looks(rng, things[target])
            meant = looks.denotes(things)
            if 2 <= len(meant) < len(things):
                return f"{rng.choice(('all', f'the {NUMBERS[len(meant)]}'))} {looks.plural()}", meant
            continue
        other = int(rng.integers(len(things)))
        pair = [_unique(rng, things, index, "looks", size) for index in (target, other)]
        if other != target and pair[0] is not None and pair[1] is not None:
            return f"{_short(rng, pair[0])} and {_short(rng, pair[1])}", sorted((target, other))
    return None


def nothing_there(rng: np.random.Generator, things: Things) -> str | None:
    """A description that fits nothing in the scene, although one change would make it fit: of colour, shape or pattern."""
    for _ in range(12):
        thing = things[int(rng.integers(len(things)))]
        looks = Appearance(
            colour=thing.colour, shape=thing.shape, pattern=thing.pattern if rng.random() < 0.3 else None
        )
        part = str(rng.choice(("colour", "shape", "pattern") if looks.pattern else ("colour", "shape")))
        values = {"colour": tuple(COLOURS), "shape": SHAPES, "pattern": PATTERNS}[part]
        changed = replace(looks, **{part: str(rng.choice(values))})
        if not changed.denotes(things):
            return changed.words()
    return None


def no_such_combination(rng: np.random.Generator, things: Things) -> str | None:
    """A description that fits nothing in the scene, although each of its words fits something: no word alone tells.

    It is drawn as true descriptions are, and then one attribute becomes that of another thing, so that its form does not tell
    either.
    """
    for _ in range(12):
        looks = _looks(rng, things[int(rng.integers(len(things)))])
        said = [name for name in ("size", "pattern", "colour", "shape") if getattr(looks, name)]
        part = str(rng.choice(said)) if len(said) > 1 else None
        other = things[int(rng.integers(len(things)))]
        if part is not None and not (changed := replace(looks, **{part: getattr(other, part)})).denotes(things):
            return changed.words()
    return None
