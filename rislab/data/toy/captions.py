"""Pictures with captions, for contrastive pretraining of the tiny CLIP."""

import numpy as np
from numpy.typing import NDArray

from rislab.data.toy.scene import COLOURS, SHAPES, Thing, draw, place

VERSION = 1  # part of the pretrained weights' name: raise it when the pairs change


def pairs(count: int, size: int, seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """uint8 RGB [count, size, size, 3] and as many captions; one to three things a picture, named from left to right."""
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
        ordered = sorted(things, key=lambda thing: thing.x)
        captions.append(" left of ".join(_name(rng, thing) for thing in ordered))
    return images, captions


def _name(rng: np.random.Generator, thing: Thing) -> str:
    words = [thing.colour, thing.shape]
    if rng.random() < 0.4:
        words.insert(0, thing.pattern)
    if rng.random() < 0.5:
        words.insert(0, thing.size)
    return " ".join(words)
