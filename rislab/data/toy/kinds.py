"""What the labelled and captioned pictures hold: things whose kind is a colour with a pattern.

A tower that is trained for a minute tells colours and patterns apart at every patch; shapes it does not. So these, not
the shapes, are the classes; shape, size and place vary and are named in captions.
"""

import numpy as np

from rislab.data.toy.scene import GROUNDS, PAINTS, PATTERNS, SHAPES, Scene, Sizes, Thing, draw, place

KINDS = tuple((pattern, colour) for colour in PAINTS for pattern in PATTERNS)
"""By label, from 1."""

SIZES = {"small": (0.16, 0.19), "large": (0.23, 0.28)}
"""Radii as shares of the side: larger than in scenes that are referred to, so that a thing covers several patches."""

ON_GROUNDS = {"small": (0.20, 0.26), "large": (0.30, 0.37)}
"""The same of scenes whose ground is of a kind."""


def kind_of(thing: Thing) -> int:
    """Label of a thing, from 1."""
    return KINDS.index((thing.pattern, thing.colour)) + 1


def gather(rng: np.random.Generator, size: int, count: int, sizes: Sizes = SIZES) -> tuple[Thing, ...]:
    """Up to `count` things, each of a kind drawn for itself; fewer where the picture is full."""
    things: list[Thing] = []
    for _ in range(count):
        looks = str(rng.choice(SHAPES)), str(rng.choice(list(PAINTS)))
        thing = place(rng, size, looks, things, sizes=sizes, striped=0.5)
        if thing is not None:
            things.append(thing)
    return tuple(things)


def any_ground(rng: np.random.Generator) -> str:
    """A kind of ground."""
    return str(rng.choice(list(GROUNDS)))


def kinds_scene(rng: np.random.Generator, size: int, grounds: bool = False) -> Scene:
    """A scene of two to four things, or of one or two large ones on a ground of a kind; same generator state, same scene."""
    least, most, sizes = (1, 2, ON_GROUNDS) if grounds else (2, 4, SIZES)
    while True:
        things = gather(rng, size, int(rng.integers(least, most + 1)), sizes)
        drawn = draw(rng, things, size, any_ground(rng) if grounds else None)
        if drawn is not None and len(drawn.things) >= least:
            return drawn
