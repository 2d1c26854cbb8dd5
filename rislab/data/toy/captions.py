"""Pictures with captions, for contrastive pretraining of the tiny CLIPs and for methods that train on pairs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rislab.data.toy.kinds import ON_GROUNDS, SIZES, any_ground, gather
from rislab.data.toy.scene import COLOURS, SHAPES, Thing, draw, place


def pairs(count: int, size: int, seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """uint8 RGB [count, size, size, 3] and as many captions; one to three things a picture."""
    rng = np.random.default_rng([seed, 7])
    images = np.empty((count, size, size, 3), np.uint8)
    captions: list[str] = []
    while len(captions) < count:
        things: list[Thing] = []
        for _ in range(int(rng.integers(1, 4))):
            thing = place(rng, size, (str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))), things)
            if thing is not None:
                things.append(thing)
        drawn = draw(rng, tuple(things), size)
        if drawn is None:
            continue
        images[len(captions)] = drawn.image
        captions.append(_caption(rng, things, size, _name))
    return images, captions


NOTHING = "nothing but ground"
COUNTS = (0.03, 0.32, 0.36, 0.29)
"""Shares of pictures with no, one, two and three things."""
COUNTS_ON_GROUNDS = (0.1, 0.54, 0.36)
"""The same where the ground is of a kind: fewer things, and a picture of ground alone has something to be named."""
GROUND_NAMED = 0.7
"""Share of captions of things that name the ground, where it is of a kind."""


def kinds_pairs(
    count: int, size: int, seed: int, whole: bool, grounds: bool = False
) -> tuple[NDArray[np.uint8], list[str]]:
    """Pictures of up to three things of the kinds that the labelled pictures hold, with captions.

    Args:
        count: Pictures.
        size: Their side in pixels.
        seed: Of everything.
        whole: Captions name all things and how they lie; else a phrase for one of them.
        grounds: One or two large things, or none, on a ground of a kind, which captions mostly name.

    Returns:
        uint8 RGB [count, size, size, 3] and as many captions.
    """
    rng = np.random.default_rng([seed, 9])
    images = np.empty((count, size, size, 3), np.uint8)
    captions: list[str] = []
    while len(captions) < count:
        shares, sizes = (COUNTS_ON_GROUNDS, ON_GROUNDS) if grounds else (COUNTS, SIZES)
        things = list(gather(rng, size, int(rng.choice(len(shares), p=shares)), sizes))
        ground = any_ground(rng) if grounds else None
        drawn = draw(rng, tuple(things), size, ground)
        if drawn is None:
            continue
        images[len(captions)] = drawn.image
        if not things:
            captions.append(NOTHING if ground is None else f"nothing but {ground}")
        else:
            one = things[int(rng.integers(len(things)))]
            caption = _caption(rng, things, size, _phrase) if whole else _phrase(rng, one)
            is_named = ground is not None and rng.random() < GROUND_NAMED
            captions.append(f"{caption} on {ground}" if is_named else caption)
    return images, captions


def _phrase(rng: np.random.Generator, thing: Thing) -> str:
    """Colour always, its pattern mostly, shape and size now and then."""
    words = [thing.colour, thing.shape if rng.random() < 0.5 else "shape"]
    if rng.random() < 0.8:
        words.insert(0, thing.pattern)
    if rng.random() < 0.25:
        words.insert(0, thing.size)
    return " ".join(words)


def _caption(
    rng: np.random.Generator, things: list[Thing], size: int, name: Callable[[np.random.Generator, Thing], str]
) -> str:
    """A lone thing is named with its place, several by how they lie to one another, so that words of place get a meaning."""
    if len(things) == 1:
        words, side = name(rng, things[0]), _side(things[0], size)
        return f"{side} {words}" if rng.random() < 0.5 else f"{words} {PLACES[side]}"
    wide = np.ptp([thing.x for thing in things]) > np.ptp([thing.y for thing in things])
    ordered = sorted(things, key=lambda thing: thing.x if wide else thing.y)
    relation = "left of" if wide else "above"
    if rng.random() < 0.5:
        ordered, relation = ordered[::-1], "right of" if wide else "below"
    return f" {relation} ".join(name(rng, thing) for thing in ordered)


PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}


def _side(thing: Thing, size: int) -> str:
    """The side of the picture that a thing is nearest to."""
    distance = {"left": thing.x, "right": size - thing.x, "top": thing.y, "bottom": size - thing.y}
    return min(distance, key=lambda side: distance[side])


def _name(rng: np.random.Generator, thing: Thing) -> str:
    words = [thing.colour, thing.shape]
    if rng.random() < 0.4:
        words.insert(0, thing.pattern)
    if rng.random() < 0.5:
        words.insert(0, thing.size)
    return " ".join(words)
