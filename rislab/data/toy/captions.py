"""Pictures with captions, for contrastive pretraining of the tiny CLIP."""

import numpy as np
from numpy.typing import NDArray

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
        captions.append(_caption(rng, things, size))
    return images, captions


def _caption(rng: np.random.Generator, things: list[Thing], size: int) -> str:
    """A lone thing is named with its place, several by how they lie to one another, so that words of place get a meaning."""
    if len(things) == 1:
        name, side = _name(rng, things[0]), _side(things[0], size)
        return f"{side} {name}" if rng.random() < 0.5 else f"{name} {PLACES[side]}"
    wide = np.ptp([thing.x for thing in things]) > np.ptp([thing.y for thing in things])
    ordered = sorted(things, key=lambda thing: thing.x if wide else thing.y)
    relation = "left of" if wide else "above"
    if rng.random() < 0.5:
        ordered, relation = ordered[::-1], "right of" if wide else "below"
    return f" {relation} ".join(_name(rng, thing) for thing in ordered)


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
